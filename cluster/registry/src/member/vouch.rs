//! Who may speak raft here although this member's log does not have it.
//!
//! A voter that has been away may not have heard of the member that leads now. So may one that was removed say, under a
//! number that nobody has. It is let in once a voter of this member's own log counts it among the group: who is such a
//! voter could itself say whatever the newcomer may say. Where none of those voters answers for long there may be
//! nobody left but newcomers, and what they say is listened to, as raft has it.

use crate::protocol::MemberStatus;
use impresario_runtime::NodeName;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// For how long a member's word for another holds.
const HOLDS: Duration = Duration::from_mins(1);
/// How often the others are asked about one that they do not vouch for.
const AGAIN: Duration = Duration::from_millis(500);
/// No member answers for so long: then nobody can vouch.
const ALONE: Duration = Duration::from_mins(1);
/// Far more than a group ever has members that one of them has not heard of.
const MOST: usize = 64;

/// What the members that are known say of one that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// One of them counts it among the group.
    Member,
    /// Those who answered do not.
    Nobody,
    /// None answered.
    Silence,
}

impl Word {
    /// What answers, of those that there were, say of a node.
    pub(super) fn of(name: &str, answers: &[MemberStatus]) -> Self {
        let has = |status: &MemberStatus| {
            status.voters.iter().chain(&status.learners).any(|member| member == name)
        };
        match answers {
            [] => Self::Silence,
            answers if answers.iter().any(has) => Self::Member,
            _ => Self::Nobody,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    /// None before the first answer.
    word: Option<Word>,
    /// Since when it is this word.
    since: Instant,
    /// When the others were asked last.
    at: Instant,
}

/// What is to be done with the message of a node that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hears {
    /// It is listened to.
    Yes,
    /// Not now: it says it again.
    No,
    /// Not now, and the others are to be asked about it.
    Asks,
}

/// Those who spoke and are not known, and what the others say of them.
#[derive(Debug, Default)]
pub(super) struct Vouched(Mutex<BTreeMap<NodeName, Asked>>);

impl Vouched {
    /// Somebody who is not known speaks.
    pub(super) fn hears(&self, name: &NodeName, now: Instant) -> Hears {
        let mut all = self.0.lock();
        let since = |at: Instant| now.saturating_duration_since(at);
        let Some(asked) = all.get_mut(name) else {
            all.retain(|_, asked| since(asked.at) < HOLDS);
            if all.len() >= MOST {
                return Hears::No;
            }
            all.insert(name.clone(), Asked { word: None, since: now, at: now });
            return Hears::Asks;
        };
        match asked.word {
            Some(Word::Member) if since(asked.since) < HOLDS => Hears::Yes,
            _ if since(asked.at) >= AGAIN => {
                asked.at = now;
                Hears::Asks
            }
            Some(Word::Silence) if since(asked.since) >= ALONE => Hears::Yes,
            _ => Hears::No,
        }
    }

    /// What the others say of it.
    pub(super) fn tell(&self, name: &NodeName, word: Word, now: Instant) {
        if let Some(asked) = self.0.lock().get_mut(name) {
            // A silence goes on; the word of a member is new each time.
            if asked.word != Some(word) || word != Word::Silence {
                asked.since = now;
            }
            asked.word = Some(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(voters: &[&str]) -> MemberStatus {
        MemberStatus {
            id: 1,
            node: "m1".to_owned(),
            leader: None,
            term: 1,
            revision: 1,
            applied: 1,
            voters: voters.iter().map(|name| (*name).to_owned()).collect(),
            learners: ["m5".to_owned()].into_iter().collect(),
            failure: None,
        }
    }

    #[test]
    fn who_is_not_known_is_heard_by_the_word_of_one_that_is() {
        let (vouched, m4, begun) = (Vouched::default(), NodeName::from("m4"), Instant::now());
        assert_eq!(vouched.hears(&m4, begun), Hears::Asks);
        assert_eq!(vouched.hears(&m4, begun), Hears::No, "they are asked once");
        assert_eq!(Word::of("m4", &[status(&["m1"])]), Word::Nobody);
        assert_eq!(Word::of("m5", &[status(&["m1"])]), Word::Member, "it has no vote yet");
        vouched.tell(&m4, Word::Nobody, begun);
        assert_eq!(vouched.hears(&m4, begun + AGAIN / 2), Hears::No);
        assert_eq!(vouched.hears(&m4, begun + AGAIN), Hears::Asks);
        let word = Word::of("m4", &[status(&["m1"]), status(&["m1", "m4"])]);
        vouched.tell(&m4, word, begun + AGAIN);
        assert_eq!(vouched.hears(&m4, begun + AGAIN * 2), Hears::Yes);
        assert_eq!(vouched.hears(&m4, begun + AGAIN + HOLDS), Hears::Asks, "it may have left");
    }

    #[test]
    fn where_no_member_answers_for_long_a_newcomer_is_heard_until_one_does() {
        let (vouched, m4, begun) = (Vouched::default(), NodeName::from("m4"), Instant::now());
        assert_eq!(Word::of("m4", &[]), Word::Silence);
        let mut now = begun;
        assert_eq!(vouched.hears(&m4, now), Hears::Asks);
        while now < begun + ALONE {
            vouched.tell(&m4, Word::Silence, now);
            assert_eq!(vouched.hears(&m4, now + AGAIN / 2), Hears::No);
            now += AGAIN;
            assert_eq!(vouched.hears(&m4, now), Hears::Asks);
        }
        vouched.tell(&m4, Word::Silence, now);
        assert_eq!(vouched.hears(&m4, now + AGAIN / 2), Hears::Yes);
        vouched.tell(&m4, Word::Nobody, now + AGAIN / 2);
        assert_eq!(vouched.hears(&m4, now + AGAIN * 3 / 4), Hears::No);
    }

    #[test]
    fn names_take_no_room_without_end() {
        let (vouched, now) = (Vouched::default(), Instant::now());
        for n in 0..MOST {
            assert_eq!(vouched.hears(&NodeName::from(format!("m{n}").as_str()), now), Hears::Asks);
        }
        assert_eq!(vouched.hears(&"more".into(), now), Hears::No);
        assert_eq!(vouched.hears(&"more".into(), now + HOLDS), Hears::Asks);
    }
}
