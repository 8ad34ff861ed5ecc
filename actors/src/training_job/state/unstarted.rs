//! Parameter servers whose node may not be able to bring the folder of the checkpoints into their pods. Such a pod never
//! starts, and so says nothing itself.

use super::State;
use impresario_client::protocol::training::Member;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A pod that has a node and has not started by then is told of.
const STARTS: Duration = Duration::from_mins(2);

impl State {
    /// Tells of a parameter server that does not start: what it waits for may be the folder.
    pub(super) fn tell_unstarted(&mut self, now: Instant) {
        let Some(rule) = self.spec.checkpoint.as_ref().filter(|_| !self.over()) else {
            self.savings.unstarted.clear();
            self.savings.not_started = None;
            return;
        };
        let servers = self.pods.values().filter(|pod| pod.member == Member::ParameterServer);
        let starting = servers.filter(|pod| pod.lives() && pod.bound && !pod.running);
        let starting: BTreeMap<&String, &String> =
            starting.map(|pod| (&pod.uid, &pod.name)).collect();
        let since = &mut self.savings.unstarted;
        since.retain(|uid, _| starting.contains_key(uid));
        let late = starting.into_iter().find(|(uid, _)| {
            let began = *since.entry((*uid).clone()).or_insert(now);
            now.duration_since(began) > STARTS
        });
        let told = late.map(|(_, name)| {
            let other = rule.resume_from.as_ref().map(|folder| format!(" and {folder}"));
            format!(
                "the pod {name} of a parameter server does not start: if its events say FailedMount, see to it that \
                 its node has the folder {}{} or can make it, or take spec.checkpoint out for pods that are made anew",
                rule.path,
                other.unwrap_or_default()
            )
        });
        if told != self.savings.not_started {
            if let Some(why) = &told {
                self.remark(true, "CheckpointFailed", why.clone());
            }
            self.savings.not_started = told;
        }
    }
}
