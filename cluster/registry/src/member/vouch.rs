//! Who may speak raft here although this member's log does not have it.
//!
//! A voter that has been away may not have heard of the member that leads now. So may one that was removed say, under a
//! number that nobody has. It is let in once a voter of this member's own log counts it among the group: who is such a
//! voter could itself say whatever the newcomer may say. Before a member has any of the log it takes the word of those
//! who let it in: what it applies while it has no vote it serves later. Time alone lets nobody in: where none of those voters is there
//! any more, an operator removes this member, and it joins anew with an empty directory.

use crate::protocol::MemberStatus;
use impresario_runtime::NodeName;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// For how long a member's word for another holds before it is asked for again, and again so long while that is not
/// answered: a snapshot that is on its way must not end each time.
const HOLDS: Duration = Duration::from_mins(1);
/// How often the others are asked about one that they do not vouch for.
const AGAIN: Duration = Duration::from_millis(500);
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
    /// It is listened to, and the others are to be asked whether it is still among them.
    YesAsks,
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
        let age = since(asked.since);
        let is_heard = asked.word == Some(Word::Member) && age < HOLDS * 2;
        if since(asked.at) < AGAIN || is_heard && age < HOLDS {
            return if is_heard { Hears::Yes } else { Hears::No };
        }
        asked.at = now;
        if is_heard { Hears::YesAsks } else { Hears::Asks }
    }

    /// Those who know the group count it among its members, be it that it has not spoken yet.
    pub(super) fn vouch(&self, name: &NodeName, now: Instant) {
        let mut all = self.0.lock();
        if all.len() < MOST {
            all.insert(name.clone(), Asked { word: Some(Word::Member), since: now, at: now });
        }
    }

    /// What the others say of it.
    pub(super) fn tell(&self, name: &NodeName, word: Word, now: Instant) {
        if let Some(asked) = self.0.lock().get_mut(name) {
            // Who does not answer takes nothing back.
            if word != Word::Silence {
                *asked = Asked { word: Some(word), since: now, at: asked.at };
            }
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
        assert_eq!(vouched.hears(&m4, begun + AGAIN + HOLDS), Hears::YesAsks, "it may have left");
        assert_eq!(vouched.hears(&m4, begun + AGAIN + HOLDS * 2), Hears::Asks);
    }

    #[test]
    fn where_no_member_answers_a_newcomer_is_not_heard_however_long_it_speaks() {
        let (vouched, m4, begun) = (Vouched::default(), NodeName::from("m4"), Instant::now());
        assert_eq!(Word::of("m4", &[]), Word::Silence);
        let mut now = begun;
        assert_eq!(vouched.hears(&m4, now), Hears::Asks);
        while now < begun + HOLDS * 10 {
            vouched.tell(&m4, Word::Silence, now);
            assert_eq!(vouched.hears(&m4, now + AGAIN / 2), Hears::No);
            now += AGAIN;
            assert_eq!(vouched.hears(&m4, now), Hears::Asks);
        }
        vouched.tell(&m4, Word::Member, now);
        assert_eq!(vouched.hears(&m4, now + AGAIN / 2), Hears::Yes);
    }

    #[test]
    fn who_is_vouched_for_each_time_that_it_is_asked_is_heard_all_the_time() {
        let (vouched, m4, begun) = (Vouched::default(), NodeName::from("m4"), Instant::now());
        assert_eq!(vouched.hears(&m4, begun), Hears::Asks);
        vouched.tell(&m4, Word::Member, begun);
        let (mut now, mut asked) = (begun, 0);
        while now < begun + HOLDS * 5 {
            now += AGAIN / 4;
            match vouched.hears(&m4, now) {
                Hears::Yes => {}
                Hears::YesAsks => {
                    asked += 1;
                    // The first time nobody answers.
                    let word = if asked == 1 { Word::Silence } else { Word::Member };
                    vouched.tell(&m4, word, now + AGAIN / 8);
                }
                other => panic!("{other:?} after {:?}", now - begun),
            }
        }
        assert!(asked >= 4);
        vouched.tell(&m4, Word::Nobody, now);
        assert_ne!(vouched.hears(&m4, now), Hears::Yes, "it was removed");
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
