//! Which life of each member was heard last, so that of two copies of a directory only one is listened to.

use super::MemberId;
use crate::Life;
use impresario_runtime::clock;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Far more than a group ever has members.
const MOST: usize = 4096;

/// How long nobody else is taken for a member that speaks: each says something every half second.
pub const EARLIER_LIFE: Duration = Duration::from_millis(1200);

/// The latest life of each member that was heard by this one, and when.
#[derive(Debug, Default)]
pub struct Heard(Mutex<BTreeMap<MemberId, (Life, Instant)>>);

impl Heard {
    /// The latest life of a member that was heard.
    pub fn of(&self, member: MemberId) -> Option<Life> {
        self.last(member).map(|(life, _)| life)
    }

    /// The latest life of a member that was heard, and when it was.
    pub fn last(&self, member: MemberId) -> Option<(Life, Instant)> {
        self.0.lock().get(&member).copied()
    }

    /// A life of a member speaks. Says which other one was heard before where that shows that this one is over, or a
    /// copy: two copies that start at once have lives of one number, and the first that speaks is the one.
    pub fn hear(&self, member: MemberId, life: Life) -> Result<(), Life> {
        self.take(member, life, clock::now(), Duration::ZERO)
    }

    /// As [`hear`](Self::hear), of one that begins to speak without having asked: while an earlier life is heard it may
    /// be the copy, and waits. The earlier one shows it nothing, so that it tries again.
    pub fn speaks(&self, member: MemberId, life: Life, now: Instant) -> Result<(), Life> {
        self.take(member, life, now, EARLIER_LIFE)
    }

    fn take(&self, member: MemberId, life: Life, now: Instant, hold: Duration) -> Result<(), Life> {
        let mut heard = self.0.lock();
        match heard.get(&member) {
            Some((known, _)) if life.is_refuted_by(*known) => Err(*known),
            Some((known, at)) if *known != life && now.saturating_duration_since(*at) < hold => {
                Err(*known)
            }
            None if heard.len() >= MOST => Ok(()),
            _ => {
                heard.insert(member, (life, now));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_copies_the_first_that_speaks_is_heard_and_then_only_later_lives() {
        let (heard, before) = (Heard::default(), Life::numbered(5));
        let (one, other) = (before.next(), before.next());
        assert_eq!(heard.hear(2, one), Ok(()));
        assert_eq!(heard.hear(2, one), Ok(()));
        assert_eq!(heard.hear(2, other), Err(one));
        assert_eq!(heard.hear(2, before), Err(one));
        let later = one.next();
        assert_eq!(heard.hear(2, later), Ok(()));
        assert_eq!((heard.hear(2, one), heard.of(2), heard.of(3)), (Err(later), Some(later), None));
    }

    #[test]
    fn a_later_life_is_listened_to_when_the_earlier_one_has_been_silent() {
        let (heard, begun) = (Heard::default(), clock::now());
        let one = Life::numbered(5).next();
        let later = one.next();
        assert_eq!(heard.speaks(2, one, begun), Ok(()));
        assert_eq!(heard.speaks(2, later, begun + EARLIER_LIFE / 2), Err(one));
        assert_eq!(heard.speaks(2, one, begun + EARLIER_LIFE), Ok(()));
        assert_eq!(heard.speaks(2, later, begun + EARLIER_LIFE * 19 / 10), Err(one));
        assert_eq!(heard.speaks(2, later, begun + EARLIER_LIFE * 2), Ok(()));
        assert_eq!(heard.speaks(2, one, begun + EARLIER_LIFE * 3), Err(later));
    }
}
