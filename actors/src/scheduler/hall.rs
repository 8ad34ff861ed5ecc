//! The training jobs that take part in the auction.

use super::fit::tolerates;
use super::picture::Picture;
use crate::controllers::owners::controller;
use crate::follow::Followed;
use crate::training_job::pods::ROLE_LABEL;
use impresario_client::protocol::training::{Bid, Member, Size};
use impresario_registry_api::{Entry, Selection, WatchEvent};
use impresario_runtime::NodeName;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self, Taint, Toleration};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

/// The jobs, as the registry calls them.
pub(super) const JOBS: &str = "training.impresario.dev/trainingjobs";
/// A round is held at least this often while there are jobs.
pub(super) const ROUND: Duration = Duration::from_secs(2);
/// In one of so many rounds all control members are asked for all bids.
const ASK_ALL: u64 = 8;
/// A job's end has moved by this part of the time until then: its models have changed.
const MOVED: f64 = 0.2;
/// Less than this many seconds is no news.
const MOVED_SECONDS: f64 = 5.0;

/// Where an operator says by which policy training jobs share the cluster: the key `policy` of a ConfigMap.
const POLICY_NAMESPACE: &str = "kube-system";
const POLICY_NAME: &str = "training-scheduler";

/// The annotation there that says which policy rounds are held by: a name that none has changes nothing, and nothing
/// changes when another scheduler takes over.
pub(super) const IN_USE: &str = "training.impresario.dev/policy-in-use";

/// The object that an operator sets the policy with.
pub(super) fn asked_policy() -> Selection {
    Selection::all("configmaps").within(POLICY_NAMESPACE).named(POLICY_NAME)
}

/// What the scheduler knows about training jobs.
#[derive(Debug, Default)]
pub(super) struct Hall {
    /// Jobs that have not ended, by uid, as they were when a round was ordered for them last.
    pub(super) jobs: BTreeMap<String, Glimpse>,
    pub(super) round: u64,
    /// Whether it was read what an operator says of the policy.
    pub(super) policy_known: bool,
    /// Since when a round is held.
    pub(super) holding: Option<Instant>,
    /// Whether a round was due while one was held.
    pub(super) missed: bool,
    /// How long the latest round took: the next is not held before as long again has passed.
    pub(super) took: Duration,
    pub(super) ordered: bool,
    /// The pods of jobs, by uid: whose member each is, in which namespace, and which.
    members: HashMap<String, (String, String, Member)>,
    /// The control member where each job bid in the latest round.
    pub(super) bidders: BTreeMap<String, NodeName>,
    /// Whether a job waits in the latest round, or has not what it is on its way to: any room is news to it.
    is_hungry: bool,
    /// The highest lease epoch in which each job has bid.
    leases: BTreeMap<String, u64>,
    /// Rounds in a row that were held soon again, for jobs whose actors did not bid yet.
    pub(super) again: u32,
}

/// A bid, and the control member whose job actor made it.
pub(super) type Bidder = (NodeName, Bid);

impl Hall {
    /// Takes notice of jobs; whether a round may come to something else by it: a job has come or gone, lost
    /// members, or thinks otherwise of its end.
    pub(super) fn seen(&mut self, followed: Followed, now: Timestamp) -> bool {
        let mut news = false;
        let mut gone = Vec::new();
        match followed {
            Followed::All(entries) => {
                let present: BTreeSet<String> =
                    entries.iter().filter_map(|entry| Some(read(entry)?.uid)).collect();
                gone.extend(self.jobs.keys().filter(|uid| !present.contains(*uid)).cloned());
                for entry in &entries {
                    news |= self.job_seen(entry, now);
                }
            }
            Followed::Changes(events) => {
                for event in events {
                    match event {
                        WatchEvent::Put { entry, .. } => news |= self.job_seen(&entry, now),
                        WatchEvent::Delete { previous, .. } => {
                            gone.extend(read(&previous).map(|job| job.uid));
                        }
                    }
                }
            }
        }
        for uid in gone {
            news |= self.jobs.remove(&uid).is_some();
        }
        if news {
            self.leases.retain(|job, _| self.jobs.contains_key(job));
        }
        news
    }

    /// The bids that count: for each job that of the newest activation. A control member that was cut off may
    /// still answer for a job that another one runs by now.
    pub(super) fn newest(&mut self, all: Vec<Bidder>) -> BTreeMap<String, Bidder> {
        let mut newest: BTreeMap<String, Bidder> = BTreeMap::new();
        for (member, bid) in all {
            let known = self.leases.entry(bid.job.clone()).or_default();
            if bid.lease >= *known && self.jobs.contains_key(&bid.job) {
                *known = bid.lease;
                newest.insert(bid.job.clone(), (member, bid));
            }
        }
        newest.retain(|job, (_, bid)| self.leases.get(job) == Some(&bid.lease));
        newest
    }

    /// Takes notice of the bids of a round.
    pub(super) fn have_bid(&mut self, bidders: BTreeMap<String, NodeName>, bids: &[Bid]) {
        self.bidders = bidders;
        let waits = |bid: &Bid| bid.wanted == Size::default() || bid.wanted != bid.current;
        self.is_hungry = bids.len() < self.jobs.len() || bids.iter().any(waits);
    }

    /// Whether a pod that may have left room is reason for a round: what grows comes with the next one anyhow.
    pub(super) fn wants_round(&self, left: bool) -> bool {
        left && self.is_hungry
    }

    /// Whom of the control members to ask first for a job's bid: the one where it bid in the latest round. Nobody is
    /// preferred from time to time, so that another is heard that has taken the job over.
    pub(super) fn first_asked(&self, job: &str, control: &[NodeName]) -> Option<&NodeName> {
        let last = self.bidders.get(job).filter(|member| control.contains(member));
        last.filter(|_| !self.round.is_multiple_of(ASK_ALL))
    }

    /// A pod was read, which may be a member of a job.
    pub(super) fn pod_seen(&mut self, pod: &v1::Pod) {
        if let Some((uid, job, member)) = member(pod) {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            self.members.insert(uid, (job, namespace, member));
        }
    }

    /// A pod is no more.
    pub(super) fn pod_gone(&mut self, uid: &str) {
        self.members.remove(uid);
    }

    /// These are all pods that there are.
    pub(super) fn pods_are(&mut self, present: &HashSet<String>) {
        self.members.retain(|uid, _| present.contains(uid));
    }

    /// What each job has by the scheduler's own picture: its pods that are bound and those that are being placed,
    /// which is just what the rooms that are free are without. What a job says of itself is of another moment. A pod
    /// of another namespace is nobody's member, whatever it says of its owner.
    pub(super) fn held(&self, picture: &Picture) -> BTreeMap<&str, Size> {
        let mut held: BTreeMap<&str, Size> = BTreeMap::new();
        let is_there = |namespace: &str, job: &str| {
            self.jobs.get(job).is_some_and(|glimpse| glimpse.namespace == namespace)
        };
        for (_, (job, namespace, member)) in
            self.members.iter().filter(|(uid, _)| picture.holds(uid))
        {
            if !is_there(namespace, job) {
                continue;
            }
            let size = held.entry(job).or_default();
            match member {
                Member::ParameterServer => size.parameter_servers += 1,
                Member::Trainer => size.trainers += 1,
            }
        }
        held
    }

    /// Whether a pod of one of the jobs may go to a node with these taints: the rooms of others are nobody's.
    pub(super) fn tolerates(&self, taints: &[Taint]) -> bool {
        let forbids = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        let all = |of_role: &Vec<Toleration>| {
            taints.iter().filter(forbids).all(|taint| tolerates(of_role, taint))
        };
        self.jobs.values().any(|job| job.tolerations.iter().any(all))
    }

    fn job_seen(&mut self, entry: &Entry, now: Timestamp) -> bool {
        let Some(Seen { uid, round, ended, glimpse }) = read(entry) else { return false };
        self.round = self.round.max(round);
        if ended {
            return self.jobs.remove(&uid).is_some();
        }
        match self.jobs.get_mut(&uid) {
            Some(before) if !glimpse.is_news(before, now) => {
                // Members that have joined are what the round gave.
                before.members = glimpse.members;
                before.tolerations = glimpse.tolerations;
                false
            }
            _ => {
                if self.jobs.insert(uid, glimpse).is_none() {
                    // Its actor is about to start.
                    self.again = 0;
                }
                true
            }
        }
    }
}

/// A pod's uid, the uid of the job that it is a member of, and as what.
fn member(pod: &v1::Pod) -> Option<(String, String, Member)> {
    let metadata = &pod.metadata;
    let owner = controller(metadata)?;
    let member = Member::named(metadata.labels.as_ref()?.get(ROLE_LABEL)?)?;
    Some((metadata.uid.clone()?, owner.uid.clone(), member))
}

/// What is seen of a job in its object.
struct Seen {
    uid: String,
    /// The round that it heard of last.
    round: u64,
    ended: bool,
    glimpse: Glimpse,
}

/// What tells in a job's object that it would bid otherwise than in the round before.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Glimpse {
    namespace: String,
    phase: Option<String>,
    /// Parameter servers and trainers.
    members: [u64; 2],
    /// When it thinks that it will have ended.
    end: Option<Timestamp>,
    /// What the pods of parameter servers and trainers tolerate.
    tolerations: [Vec<Toleration>; 2],
}

impl Glimpse {
    fn is_news(&self, before: &Self, now: Timestamp) -> bool {
        let lost = self.members.iter().zip(&before.members).any(|(now, before)| now < before);
        let moved = match (before.end, self.end) {
            (Some(before), Some(end)) => {
                let seconds =
                    |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64();
                let left = seconds(now, before).max(0.0);
                seconds(before, end).abs() > (left * MOVED).max(MOVED_SECONDS)
            }
            (before, end) => before != end,
        };
        lost || moved || self.phase != before.phase
    }
}

fn read(entry: &Entry) -> Option<Seen> {
    let job: Value = serde_json::from_slice(&entry.value).ok()?;
    let status = &job["status"];
    let over = matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"));
    let end = status["predictedCompletionTime"].as_str();
    Some(Seen {
        uid: job["metadata"]["uid"].as_str()?.to_owned(),
        round: status["round"].as_u64().unwrap_or(0),
        ended: over || !job["metadata"]["deletionTimestamp"].is_null(),
        glimpse: Glimpse {
            namespace: job["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
            phase: status["phase"].as_str().map(str::to_owned),
            members: ["parameterServers", "trainers"]
                .map(|role| status[role].as_u64().unwrap_or(0)),
            end: end.and_then(|end| end.parse().ok()),
            tolerations: ["parameterServer", "trainer"].map(|role| {
                let tolerations = &job["spec"][role]["template"]["spec"]["tolerations"];
                serde_json::from_value(tolerations.clone()).unwrap_or_default()
            }),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry_api::Key;
    use impresario_runtime::clock;
    use serde_json::json;

    fn entry(uid: &str, status: &Value) -> Entry {
        let object = json!({"metadata": {"uid": uid}, "status": status});
        Entry {
            key: Key::new(JOBS, "ns", uid),
            value: object.to_string().into(),
            create_revision: 1,
            mod_revision: 1,
        }
    }

    fn put(uid: &str, status: Value) -> Followed {
        let entry = entry(uid, &status);
        Followed::Changes(vec![WatchEvent::Put { entry, previous: None }])
    }

    #[test]
    fn what_a_job_s_object_tells_orders_a_round_when_the_job_would_bid_otherwise() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut hall = Hall::default();
        let mut seen = |status: Value| hall.seen(put("a", status), now);
        let running = |trainers: u64, end: &str| {
            json!({"phase": "Running", "parameterServers": 1, "trainers": trainers,
                "predictedCompletionTime": format!("2026-01-01T00:{end}Z")})
        };
        assert!(seen(json!({"phase": "Pending"})), "it has come");
        assert!(!seen(json!({"phase": "Pending", "step": 1})));
        assert!(seen(running(2, "10:00")), "it runs");
        assert!(!seen(running(2, "11:30")), "less than a fifth later");
        assert!(!seen(running(3, "10:30")), "what a round gave");
        assert!(seen(running(2, "10:30")), "a member was lost");
        assert!(!seen(running(2, "12:00")), "measured from the last news");
        assert!(seen(running(2, "12:40")), "its end has moved");
        assert!(seen(running(2, "05:00")), "and back");
        assert!(seen(json!({"phase": "Running", "parameterServers": 1, "trainers": 2})));
        assert!(seen(json!({"phase": "Succeeded"})), "it has ended");
        assert!(!seen(json!({"phase": "Succeeded", "step": 2})));
    }

    #[test]
    fn rounds_that_wait_for_an_actor_are_counted_from_the_arrival_of_a_job() {
        let now = clock::timestamp();
        let mut hall = Hall::default();
        assert!(hall.seen(put("a", json!({"phase": "Pending"})), now));
        hall.again = 7;
        assert!(hall.seen(put("a", json!({"phase": "Running"})), now), "other news");
        assert_eq!(hall.again, 7);
        assert!(hall.seen(put("b", json!({"phase": "Pending"})), now));
        assert_eq!(hall.again, 0);
    }

    #[test]
    fn a_list_orders_a_round_when_a_job_is_not_in_it_any_more() {
        let now = clock::timestamp();
        let mut hall = Hall::default();
        let all = |names: &[&str]| {
            Followed::All(names.iter().map(|name| entry(name, &json!({}))).collect())
        };
        assert!(hall.seen(all(&["a", "b"]), now));
        assert!(!hall.seen(all(&["a", "b"]), now));
        assert!(hall.seen(all(&["b"]), now));
        assert!(!hall.seen(Followed::Changes(Vec::new()), now));
    }
}
