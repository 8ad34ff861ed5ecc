//! Who may speak raft here although this member's log does not have it.
//!
//! A voter that has been away may not have heard of the member that leads now. So may one that was removed say, under a
//! number that nobody has. It is let in once a voter of this member's own log counts it among the group: who is such a
//! voter could itself say whatever the newcomer may say. Before a member has any of the log it takes the word of those
//! who let it in: what it applies while it has no vote it serves later. Time alone lets nobody in: where none of those voters is there
//! any more, an operator removes this member, and it joins anew with an empty directory.

use crate::{
    protocol::{GroupMembers, MemberStatus},
    raft::MemberId,
};
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
/// How many numbers of one name are asked about at a time.
const MOST_OF_NAME: usize = 4;

/// Who speaks raft: a certificate's node, and the number that it says is its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Speaker {
    pub(super) name: NodeName,
    pub(super) member: MemberId,
}

/// Whom one that was asked counts among the group.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    by: NodeName,
    /// Their numbers; none from one of a version that does not tell.
    members: Vec<(Option<MemberId>, NodeName)>,
    /// The term in which one of them leads.
    led: Option<u64>,
}

impl Answer {
    pub(super) fn of(by: NodeName, group: &GroupMembers) -> Self {
        let led = group.leader.filter(|leader| group.members.contains_key(leader));
        let members = group.members.iter();
        let members = members.map(|(id, name)| (Some(*id), NodeName::from(name.as_str())));
        Self { by, members: members.collect(), led: led.map(|_| group.term) }
    }

    /// The same of one of a version that has no numbers for it.
    pub(super) fn without_numbers(by: NodeName, status: &MemberStatus) -> Self {
        let members = status.voters.iter().chain(&status.learners);
        let members: Vec<_> = members.map(|name| (None, NodeName::from(name.as_str()))).collect();
        let leads = |leader: &&String| members.iter().any(|(_, name)| name.as_str() == *leader);
        let led = status.leader.as_ref().filter(leads).map(|_| status.term);
        Self { by, members, led }
    }

    /// Those whom it counts among the group, where it has said their numbers.
    pub(super) fn speakers(&self) -> impl Iterator<Item = Speaker> {
        let numbered = |(member, name): &(Option<MemberId>, NodeName)| {
            Some(Speaker { name: name.clone(), member: (*member)? })
        };
        self.members.iter().filter_map(numbered)
    }

    fn has(&self, speaker: &Speaker, is_new_name: bool) -> bool {
        self.members.iter().any(|(member, name)| {
            *name == speaker.name && member.map_or(is_new_name, |member| member == speaker.member)
        })
    }
}

/// Those who were asked, and what they are asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) speaker: &'a Speaker,
    /// Whether this member knows nobody of this name under another number.
    pub(super) is_new_name: bool,
    /// How many were asked.
    pub(super) count: usize,
    /// The term that this member is in.
    pub(super) term: u64,
}

/// What the members that are known say of one that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// One of them counts it among the group.
    Member,
    /// Those who know do not.
    Nobody,
    /// None answered who knows.
    Silence,
}

impl Word {
    /// What answers say. That nobody has heard of a node counts from most of those who were asked, or from one that is
    /// led in this member's term or a later one: who was removed and runs on has heard of nobody who came later. What
    /// the node says of itself, where it is one of those who let this member in, counts where nobody else knows.
    pub(super) fn of(asked: Asked<'_>, answers: &[Answer]) -> Self {
        let Asked { speaker, is_new_name, count, term } = asked;
        let knowing = answers.iter().filter(|answer| !answer.members.is_empty());
        let (own, others): (Vec<_>, Vec<_>) = knowing.partition(|answer| answer.by == speaker.name);
        let has = |answer: &&Answer| answer.has(speaker, is_new_name);
        let is_led = |answer: &&Answer| answer.led.is_some_and(|led| led >= term);
        if others.iter().any(has) {
            Self::Member
        } else if 2 * others.len() > count || others.iter().any(is_led) {
            Self::Nobody
        } else if own.iter().any(has) {
            Self::Member
        } else {
            Self::Silence
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Heard {
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
pub(super) struct Vouched(Mutex<BTreeMap<Speaker, Heard>>);

impl Vouched {
    /// Somebody who is not known speaks.
    pub(super) fn hears(&self, speaker: &Speaker, now: Instant) -> Hears {
        let mut all = self.0.lock();
        let since = |at: Instant| now.saturating_duration_since(at);
        let Some(heard) = all.get_mut(speaker) else {
            let is_placed = place(&mut all, speaker, Heard { word: None, since: now, at: now });
            return if is_placed { Hears::Asks } else { Hears::No };
        };
        let age = since(heard.since);
        let is_heard = heard.word == Some(Word::Member) && age < HOLDS * 2;
        if since(heard.at) < AGAIN || is_heard && age < HOLDS {
            return if is_heard { Hears::Yes } else { Hears::No };
        }
        heard.at = now;
        if is_heard { Hears::YesAsks } else { Hears::Asks }
    }

    /// Those who know the group count it among its members, be it that it has not spoken yet.
    pub(super) fn vouch(&self, speaker: &Speaker, now: Instant) {
        let heard = Heard { word: Some(Word::Member), since: now, at: now };
        let mut all = self.0.lock();
        if let Some(known) = all.get_mut(speaker) {
            *known = heard;
        } else {
            // One that finds no place is asked about when it speaks.
            let _ = place(&mut all, speaker, heard);
        }
    }

    /// What the others say of it.
    pub(super) fn tell(&self, speaker: &Speaker, word: Word, now: Instant) {
        if let Some(heard) = self.0.lock().get_mut(speaker) {
            // Who does not answer takes nothing back.
            if word != Word::Silence {
                *heard = Heard { word: Some(word), since: now, at: heard.at };
            }
        }
    }
}

/// Finds a place for one that is new. Numbers that one name makes up take each other's places and nobody else's, and
/// not that of the one which is vouched for.
fn place(all: &mut BTreeMap<Speaker, Heard>, speaker: &Speaker, heard: Heard) -> bool {
    let now = heard.at;
    all.retain(|_, known| now.saturating_duration_since(known.at) < HOLDS * 2);
    let of_name = |known: &&Speaker| known.name == speaker.name;
    if all.keys().filter(of_name).count() >= MOST_OF_NAME {
        let unknown = all.iter().filter(|(known, _)| of_name(known));
        let unknown = unknown.filter(|(_, heard)| heard.word != Some(Word::Member));
        let Some(oldest) =
            unknown.min_by_key(|(_, heard)| heard.at).map(|(known, _)| known.clone())
        else {
            return false;
        };
        all.remove(&oldest);
    }
    if all.len() >= MOST {
        return false;
    }
    all.insert(speaker.clone(), heard);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_runtime::clock;

    fn m4() -> Speaker {
        Speaker { name: "m4".into(), member: 4 }
    }

    fn says(by: &str, members: &[(MemberId, &str)], leader: Option<MemberId>) -> Answer {
        let members = members.iter().map(|(id, name)| (*id, (*name).to_owned())).collect();
        Answer::of(by.into(), &GroupMembers { members, leader, term: 7 })
    }

    fn of(count: usize, term: u64, answers: &[Answer]) -> Word {
        Word::of(Asked { speaker: &m4(), is_new_name: true, count, term }, answers)
    }

    #[test]
    fn who_is_not_known_is_heard_by_the_word_of_one_that_is() {
        let (vouched, begun) = (Vouched::default(), clock::now());
        assert_eq!(vouched.hears(&m4(), begun), Hears::Asks);
        assert_eq!(vouched.hears(&m4(), begun), Hears::No, "they are asked once");
        vouched.tell(&m4(), Word::Nobody, begun);
        assert_eq!(vouched.hears(&m4(), begun + AGAIN / 2), Hears::No);
        assert_eq!(vouched.hears(&m4(), begun + AGAIN), Hears::Asks);
        let word = of(2, 1, &[says("m1", &[(1, "m1")], None), says("m2", &[(4, "m4")], None)]);
        vouched.tell(&m4(), word, begun + AGAIN);
        assert_eq!(vouched.hears(&m4(), begun + AGAIN * 2), Hears::Yes);
        assert_eq!(vouched.hears(&m4(), begun + AGAIN + HOLDS), Hears::YesAsks, "it may have left");
        assert_eq!(vouched.hears(&m4(), begun + AGAIN + HOLDS * 2), Hears::Asks);
    }

    #[test]
    fn that_nobody_has_heard_of_it_counts_from_most_or_from_one_that_is_led() {
        let m9 = |leader| says("m9", &[(1, "m1"), (2, "m2"), (9, "m9")], leader);
        assert_eq!(of(2, 7, &[]), Word::Silence);
        assert_eq!(of(2, 7, &[m9(None)]), Word::Silence, "it may have been removed");
        assert_eq!(of(2, 7, &[m9(Some(4))]), Word::Silence, "it has not caught up");
        assert_eq!(of(2, 8, &[m9(Some(1))]), Word::Silence, "it was led long ago");
        assert_eq!(of(2, 7, &[m9(Some(1))]), Word::Nobody);
        assert_eq!(of(1, 7, &[m9(None)]), Word::Nobody);
        assert_eq!(of(2, 7, &[m9(None), says("m2", &[(2, "m2")], None)]), Word::Nobody);
        let blank = says("m3", &[], None);
        assert_eq!(
            of(1, 7, std::slice::from_ref(&blank)),
            Word::Silence,
            "it knows of no group yet"
        );

        // One of those who let this member in vouches for itself, unless another one knows better.
        let own = says("m4", &[(1, "m1"), (4, "m4")], Some(4));
        assert_eq!(of(2, 7, &[own.clone(), blank]), Word::Member);
        assert_eq!(of(2, 7, &[own, m9(Some(1))]), Word::Nobody);
    }

    #[test]
    fn the_word_is_for_a_number_and_not_for_a_name_that_had_another() {
        let answers = [says("m2", &[(2, "m2"), (6, "m4")], None)];
        assert_eq!(of(2, 7, &answers), Word::Silence);
        let back = Speaker { member: 6, ..m4() };
        let asked = Asked { speaker: &back, is_new_name: false, count: 2, term: 7 };
        assert_eq!(Word::of(asked, &answers), Word::Member);
        let status = MemberStatus {
            id: 2,
            node: "m2".to_owned(),
            leader: None,
            term: 7,
            revision: 1,
            applied: 1,
            voters: vec!["m2".to_owned()],
            learners: vec!["m4".to_owned()],
            failure: None,
        };
        let named = [Answer::without_numbers("m2".into(), &status)];
        assert_eq!(Word::of(asked, &named), Word::Silence, "the name alone may be the old disk's");
        assert_eq!(of(2, 7, &named), Word::Member);
    }

    #[test]
    fn where_no_member_answers_a_newcomer_is_not_heard_however_long_it_speaks() {
        let (vouched, begun) = (Vouched::default(), clock::now());
        let mut now = begun;
        assert_eq!(vouched.hears(&m4(), now), Hears::Asks);
        while now < begun + HOLDS * 10 {
            vouched.tell(&m4(), Word::Silence, now);
            assert_eq!(vouched.hears(&m4(), now + AGAIN / 2), Hears::No);
            now += AGAIN;
            assert_eq!(vouched.hears(&m4(), now), Hears::Asks);
        }
        vouched.tell(&m4(), Word::Member, now);
        assert_eq!(vouched.hears(&m4(), now + AGAIN / 2), Hears::Yes);
    }

    #[test]
    fn who_is_vouched_for_each_time_that_it_is_asked_is_heard_all_the_time() {
        let (vouched, begun) = (Vouched::default(), clock::now());
        vouched.vouch(&m4(), begun);
        let (mut now, mut asked) = (begun, 0);
        while now < begun + HOLDS * 5 {
            now += AGAIN / 4;
            match vouched.hears(&m4(), now) {
                Hears::Yes => {}
                Hears::YesAsks => {
                    asked += 1;
                    // The first time nobody answers.
                    let word = if asked == 1 { Word::Silence } else { Word::Member };
                    vouched.tell(&m4(), word, now + AGAIN / 8);
                }
                other => panic!("{other:?} after {:?}", now - begun),
            }
        }
        assert!(asked >= 4);
        vouched.tell(&m4(), Word::Nobody, now);
        assert_ne!(vouched.hears(&m4(), now), Hears::Yes, "it was removed");
    }

    #[test]
    fn neither_names_nor_numbers_take_room_without_end() {
        let (vouched, now) = (Vouched::default(), clock::now());
        let speaker = |name: &str, member| Speaker { name: name.into(), member };
        vouched.vouch(&speaker("m0", 1), now);
        for number in 2..100 {
            assert_eq!(vouched.hears(&speaker("m0", number), now), Hears::Asks);
        }
        assert_eq!(vouched.hears(&speaker("m0", 1), now), Hears::Yes, "it keeps its place");
        assert_eq!(vouched.0.lock().len(), MOST_OF_NAME);
        for n in MOST_OF_NAME..MOST {
            assert_eq!(vouched.hears(&speaker(&format!("m{n}"), 1), now), Hears::Asks);
        }
        assert_eq!(vouched.hears(&speaker("more", 1), now), Hears::No);
        assert_eq!(vouched.hears(&speaker("more", 1), now + HOLDS * 2), Hears::Asks);
    }
}
