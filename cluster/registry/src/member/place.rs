//! Whether the group has a place for this member.
//!
//! What is certain is said once, and written into the directory at that moment where it holds for all later starts: a
//! process that is killed before it has stopped must not be let in the next time.

use super::returns::NoPlace;
use crate::{disk::identity::Claimed, life::Life, protocol::MembershipError, raft::MemberNode};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The directory that a member has claimed, and why the group has no place for it, if so.
#[derive(Debug)]
pub(super) struct Place {
    claim: Mutex<Option<Claimed>>,
    refused: watch::Sender<Option<MembershipError>>,
}

impl Place {
    pub(super) fn new(claim: Claimed) -> Self {
        Self { claim: Mutex::new(Some(claim)), refused: watch::Sender::new(None) }
    }

    /// The group has no place for this member. The first word counts.
    pub(super) fn refuse(&self, NoPlace { why, for_good }: &NoPlace) {
        if self.refused.borrow().is_some() {
            return;
        }
        tracing::error!(%why, "the group has no place for this member: it ends");
        if *for_good
            && matches!(why, MembershipError::Copied { .. })
            && let Some(claim) = self.claim.lock().as_mut()
            && let Err(error) = claim.refuse(why.to_string())
        {
            tracing::error!(%error, "the directory does not say that it was refused");
        }
        self.refused.send_replace(Some(why.clone()));
    }

    /// Resolves when the group has refused this member.
    pub(super) fn refused(&self) -> impl Future<Output = MembershipError> + Send + 'static {
        let mut refused = self.refused.subscribe();
        async move {
            match refused.wait_for(Option::is_some).await.map(|refused| refused.clone()) {
                Ok(Some(refused)) => refused,
                _ => std::future::pending().await,
            }
        }
    }

    /// Gives the directory up.
    pub(super) fn release(&self) {
        drop(self.claim.lock().take());
    }
}

/// Why a directory has no place that has not had the life that the group knows.
pub(super) fn copied(node: &MemberNode, known: Life) -> MembershipError {
    let (known, shown) = (known.number(), node.generation.number());
    MembershipError::Copied { node: node.name.clone(), known, shown }
}

/// Why a life of a member's directory has no place where another one of it speaks, which may be the copy. It ends
/// this process and is written nowhere: only what stands in a membership says for good which of the two is the copy.
pub(super) fn refuted(node: &MemberNode, member: u64) -> MembershipError {
    MembershipError::RunsAlready { node: node.name.clone(), member }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskError;

    #[test]
    fn a_refusal_is_on_the_disk_before_anybody_hears_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let claim = || Claimed::claim(directory.path(), "c", "n1");
        let place = Place::new(claim().unwrap());
        let why = MembershipError::Copied { node: "n1".to_owned(), known: 6, shown: 5 };
        place.refuse(&NoPlace { why, for_good: true });
        // Killed here: nothing is stopped, and the lock goes with the process.
        place.release();
        let refused = claim().unwrap_err();
        assert!(matches!(refused, DiskError::Foreign { .. }), "{refused:?}");
        assert!(refused.to_string().contains("imp member remove n1"), "{refused}");
    }

    #[tokio::test]
    async fn what_few_say_ends_the_process_and_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let claim = || Claimed::claim(directory.path(), "c", "n1");
        let place = Place::new(claim().unwrap());
        let why = MembershipError::Copied { node: "n1".to_owned(), known: 6, shown: 5 };
        place.refuse(&NoPlace { why: why.clone(), for_good: false });
        assert_eq!(place.refused().await, why);
        place.release();
        assert_eq!(claim().unwrap().identity().refused, None);
    }
}
