//! Which life of each member was heard last, so that of two copies of a directory only one is listened to.

use super::MemberId;
use crate::Life;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Far more than a group ever has members.
const MOST: usize = 4096;

/// The latest life of each member that was heard by this one.
#[derive(Debug, Default)]
pub struct Heard(Mutex<BTreeMap<MemberId, Life>>);

impl Heard {
    /// The latest life of a member that was heard.
    pub fn of(&self, member: MemberId) -> Option<Life> {
        self.0.lock().get(&member).copied()
    }

    /// A life of a member speaks. Says which other one was heard before where that shows that this one is over, or a
    /// copy: two copies that start at once have lives of one number, and the first that speaks is the one.
    pub fn hear(&self, member: MemberId, life: Life) -> Result<(), Life> {
        let mut heard = self.0.lock();
        match heard.get(&member) {
            Some(known) if life.is_refuted_by(*known) => Err(*known),
            None if heard.len() >= MOST => Ok(()),
            _ => {
                heard.insert(member, life);
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
}
