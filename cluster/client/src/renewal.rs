//! Keeps a process's certificate young while it runs.
//!
//! When two thirds of what is left of a certificate's life are over, the next one is asked for from any control
//! member's authority, for a new key. Connections that stand keep what they began with, so none is dropped. On the disk
//! key and certificate are replaced together or not at all.

use crate::protocol::authority::{AUTHORITY, AuthorityRole, JoinRole, Renew, RenewError};
use impresario_runtime::pki::{KeyRequest, PkiError};
use impresario_runtime::{ActorNode, ActorPath, AskError, Backoff, Credential, NodeName, PeerRole};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long one authority has to answer.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// Pauses after a renewal that failed.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_mins(5) };
/// The longest sleep: clocks are looked at again, since a machine may have been suspended.
const LONGEST_SLEEP: Duration = Duration::from_hours(1);

/// Why a certificate was not renewed this time.
#[derive(Debug, Error)]
pub enum RenewalError {
    /// The authority said no.
    #[error(transparent)]
    Refused(#[from] RenewError),
    /// No control member answered.
    #[error("no control member answered ({0})")]
    Unreachable(String),
    /// Nobody renews the certificate of such a role.
    #[error("the certificate of {role:?} is not renewed: a new one is made where it came from")]
    Role {
        /// The role.
        role: PeerRole,
    },
    /// What came back, or what is on the disk, cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// A task that renews one certificate. Ends when dropped.
#[derive(Debug)]
pub struct Renewal {
    task: JoinHandle<()>,
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a process's own certificate depends on.
#[derive(Debug)]
pub struct OwnCertificate {
    /// The process's actor node.
    pub node: ActorNode,
    /// The certificate that it has now.
    pub credential: Credential,
    /// Where it lies, if it is kept.
    pub folder: Option<PathBuf>,
    /// The addresses and names that it is good for.
    pub subjects: Vec<String>,
    /// Who can be asked for the next one.
    pub members: watch::Receiver<Vec<NodeName>>,
}

impl Renewal {
    /// Does this until it is dropped.
    #[must_use]
    pub fn by(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { task: tokio::spawn(work) }
    }

    /// Renews a process's own certificate as long as it runs.
    #[must_use]
    pub fn of_node(mut own: OwnCertificate) -> Self {
        Self::by(async move {
            loop {
                await_due(own.credential.validity().1).await;
                let mut attempt = 0;
                while let Err(error) = own.renew().await {
                    let valid_for = left(own.credential.validity().1);
                    tracing::warn!(%error, ?valid_for, "the certificate is not renewed yet");
                    tokio::time::sleep(PAUSES.wait(attempt, rand::random())).await;
                    attempt += 1;
                }
                let valid_for = left(own.credential.validity().1);
                tracing::info!(?valid_for, "there is a new certificate");
            }
        })
    }
}

impl OwnCertificate {
    /// Asks for the next one now, with a new key: what somebody has copied of the old one ends with it.
    pub async fn renew(&mut self) -> Result<(), RenewalError> {
        let identity = self.credential.identity();
        let role = match identity.role {
            PeerRole::Control => JoinRole::Control,
            PeerRole::Node => JoinRole::Node,
            PeerRole::Client => JoinRole::Client,
            PeerRole::Admin | PeerRole::Guest { .. } => {
                return Err(RenewalError::Role { role: identity.role.clone() });
            }
        };
        let request = KeyRequest::generate()?;
        let renew = Renew {
            name: identity.node.to_string(),
            role,
            subjects: self.subjects.clone(),
            csr_pem: request.csr_pem().to_owned(),
        };
        let mut members = self.members.borrow().clone();
        // Its own authority answers without a network; otherwise any.
        members.sort_by_key(|member| (*member != identity.node, rand::random::<u32>()));
        let mut last = "the cluster has no control member".to_owned();
        for member in members {
            let path = ActorPath::new(member, AUTHORITY);
            match self.node.actor::<AuthorityRole>(path).ask(renew.clone(), ASK_LIMIT).await {
                Ok(Ok(renewed)) => {
                    let (certificate, authority) = (renewed.certificate_pem, renewed.authority_pem);
                    let next = request.into_credential(&certificate, &authority)?;
                    // On the disk first: a process that starts now must not begin with less.
                    if let Some(folder) = &self.folder {
                        next.save(folder)?;
                    }
                    self.node.replace_credential(&next)?;
                    self.credential = next;
                    return Ok(());
                }
                Ok(Err(error @ RenewError::Unavailable { .. })) => last = error.to_string(),
                Ok(Err(error)) => return Err(error.into()),
                Err(error @ AskError::Refused { .. }) => {
                    return Err(RenewalError::Unreachable(error.to_string()));
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(RenewalError::Unreachable(last))
    }
}

/// Waits until the next certificate is due.
pub async fn await_due(until: SystemTime) {
    let due = due(SystemTime::now(), until, rand::random());
    while let Ok(left) = due.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

/// When two thirds of the time from `now` to `until` are over, or up to a tenth of that earlier, so
/// that nodes that were made together do not ask together.
fn due(now: SystemTime, until: SystemTime, jitter: f64) -> SystemTime {
    let left = until.duration_since(now).unwrap_or(Duration::ZERO);
    now + (left * 2 / 3).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 10.0)
}

/// How long it is until then, in whole seconds.
pub fn left(until: SystemTime) -> Duration {
    let left = until.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
    Duration::from_secs(left.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_before_it_ends_and_at_once_when_it_has() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(1_000);
        let day = Duration::from_hours(24);
        assert_eq!(due(now, now + day, 0.0), now + day * 2 / 3);
        assert!(due(now, now + day, 1.0) >= now + day * 6 / 10);
        assert!(due(now, now + day, 1.0) < now + day * 2 / 3);
        assert_eq!(due(now, now - day, 0.5), now);
    }
}
