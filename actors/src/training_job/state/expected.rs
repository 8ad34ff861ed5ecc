//! Pods that a job has asked for and does not see yet: they count, so that none is asked for twice.

use impresario_client::protocol::training::Member;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A pod that was made and is not seen for so long has gone before anybody saw it.
const UNSEEN: Duration = Duration::from_secs(10);

/// What is on its way.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Asked for; the registry has not answered.
    asked: Vec<Member>,
    /// Made, by uid, and since when.
    made: BTreeMap<String, (Member, Instant)>,
}

impl Expected {
    pub(super) fn ask(&mut self, member: Member) {
        self.asked.push(member);
    }

    /// The registry has answered: with the uid of the pod, or that there is none.
    pub(super) fn answered(&mut self, member: Member, made: Option<String>, now: Instant) {
        if let Some(place) = self.asked.iter().position(|asked| *asked == member) {
            self.asked.swap_remove(place);
        }
        self.made.extend(made.map(|uid| (uid, (member, now))));
    }

    pub(super) fn seen(&mut self, uid: &str) {
        self.made.remove(uid);
    }

    /// How many of these are on their way.
    pub(super) fn count(&mut self, member: Member, now: Instant) -> usize {
        self.made.retain(|_, (_, since)| now.duration_since(*since) <= UNSEEN);
        let made = self.made.values().filter(|(made, _)| *made == member).count();
        made + self.asked.iter().filter(|asked| **asked == member).count()
    }
}
