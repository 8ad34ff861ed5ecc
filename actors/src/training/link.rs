//! A member's way to its training job, wherever the job's actor lives.
//!
//! The job's actor is on the control member that holds its shard, and moves when that one fails.
//! A [`Link`] asks the member that answered last, and goes round the others when it no longer does.

use impresario_client::protocol::training::{
    ControlMembers, JoinRefused, JoinTraining, StaleLease, TrainingJobRole, job_actor,
};
use impresario_runtime::{
    Accepts, ActorNode, ActorPath, AskError, Backoff, Message, NodeName, Remedy, clock, random,
};
use parking_lot::Mutex;
use rand::Rng as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long one control member may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Pauses until a job whose actor has just started is asked again.
const NOT_YET: Backoff = Backoff { first: Duration::from_millis(50), most: Duration::from_secs(1) };
/// How often the job is asked who the control members are.
const REFRESH: Duration = Duration::from_secs(30);
/// So many control members are believed.
const MOST_MEMBERS: usize = 64;
/// So many that are not named any more are asked still, after the others: who names them may not know of them yet.
const KEPT_MEMBERS: usize = 4;
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(20), most: Duration::from_secs(1) };

/// The way to a job. Cheap to clone; clones share what they learn.
#[derive(Clone)]
pub struct Link {
    node: ActorNode,
    job: String,
    /// The control members: those that the job names, then those of before.
    control: Arc<Mutex<Vec<NodeName>>>,
    /// How many of them the job names, or were there at the beginning.
    told: Arc<AtomicUsize>,
    /// Those that say that the job has no actor there, and since when.
    denials: Arc<Mutex<BTreeMap<NodeName, Instant>>>,
    refreshed: Arc<Mutex<Option<Instant>>>,
    /// When the job answered last.
    heard: Arc<Mutex<Instant>>,
    turn: Arc<AtomicUsize>,
    activation: Arc<AtomicU64>,
    /// The highest lease epoch of the job that was seen: orders of older ones are refused.
    lease: Arc<AtomicU64>,
}

impl Link {
    /// A link to the job with this uid over these control members.
    pub fn new(node: ActorNode, job: &str, control: Vec<NodeName>) -> Self {
        Self {
            node,
            job: job.to_owned(),
            told: Arc::new(AtomicUsize::new(control.len())),
            control: Arc::new(Mutex::new(control)),
            denials: Arc::default(),
            refreshed: Arc::default(),
            heard: Arc::new(Mutex::new(clock::now())),
            turn: Arc::default(),
            activation: Arc::default(),
            lease: Arc::default(),
        }
    }

    /// This process's node.
    pub fn node(&self) -> &ActorNode {
        &self.node
    }

    /// The activation of the job's actor that welcomed this member; 0 before.
    pub fn activation(&self) -> u64 {
        self.activation.load(Ordering::Acquire)
    }

    /// When the job answered last; when the link was made, if it never did.
    pub fn heard(&self) -> Instant {
        *self.heard.lock()
    }

    /// Since when all control members say that there is no such job; `None` where one of them says otherwise, or
    /// nothing.
    pub fn denied(&self) -> Option<Instant> {
        let (control, denials) = (self.control.lock().clone(), self.denials.lock());
        // Those that are named no more may be gone, and say nothing.
        let told = self.told.load(Ordering::Relaxed);
        let since: Option<Vec<Instant>> =
            control.iter().take(told).map(|member| denials.get(member).copied()).collect();
        since.and_then(|since| since.into_iter().max())
    }

    /// Asks who the control members are, now and then: each of those that were there when the pod started
    /// may have been replaced since.
    pub async fn refresh(&self, pod_uid: &str) {
        {
            let mut refreshed = self.refreshed.lock();
            if refreshed.is_some_and(|at| at.elapsed() < REFRESH) {
                return;
            }
            *refreshed = Some(clock::now());
        }
        let ask = || ControlMembers { pod_uid: pod_uid.to_owned() };
        match self.ask(ANSWER, ask).await {
            Ok(told) => self.learn(told),
            Err(error) => {
                tracing::debug!(%error, "the job does not say who the control members are");
            }
        }
    }

    /// Goes by these control members from now on.
    fn learn(&self, told: Vec<(NodeName, SocketAddr)>) {
        // A member that has not found its group yet knows of nobody.
        if told.is_empty() || told.len() > MOST_MEMBERS {
            return;
        }
        for (name, address) in &told {
            self.node.addresses().set(name.clone(), *address);
        }
        let mut told: Vec<NodeName> = told.into_iter().map(|(name, _)| name).collect();
        let mut known = self.control.lock();
        let asked = known.get(self.turn.load(Ordering::Relaxed) % known.len().max(1)).cloned();
        // When it goes, those that are there are asked before those that may be long gone: each of these would cost
        // the time of an answer.
        if let Some(place) = told.iter().position(|member| Some(member) == asked.as_ref()) {
            told.rotate_left(place);
        }
        self.told.store(told.len(), Ordering::Relaxed);
        let members = with_earlier(told, &known);
        if *known != members {
            if members.iter().any(|member| !known.contains(member)) {
                tracing::info!(job = self.job, ?members, "the control members are others now");
            }
            // Whoever runs the job is asked first as before.
            if let Some(turn) = members.iter().position(|member| Some(member) == asked.as_ref()) {
                self.turn.store(turn, Ordering::Relaxed);
            }
            self.denials.lock().retain(|member, _| members.contains(member));
            *known = members;
        }
    }

    /// This member has not answered for the job: it has none, or could not be asked.
    fn denies(&self, member: &NodeName, error: &AskError) {
        let mut denials = self.denials.lock();
        if matches!(error, AskError::NoSuchActor { .. }) {
            denials.entry(member.clone()).or_insert_with(clock::now);
            return;
        }
        denials.remove(member);
        drop(denials);
        // Who is named no more and does not answer is gone: each would cost the time of an answer at each turn.
        let (mut control, told) = (self.control.lock(), self.told.load(Ordering::Relaxed));
        if let Some(place) = control.iter().position(|known| known == member)
            && place >= told
        {
            control.remove(place);
        }
    }

    /// Whether an order of this lease is to be followed: not if a later one has been seen.
    pub fn obeys(&self, lease: u64) -> Result<(), StaleLease> {
        let current = self.lease.fetch_max(lease, Ordering::AcqRel);
        if lease < current { Err(StaleLease { given: lease, current }) } else { Ok(()) }
    }

    /// Joins the newest activation of the job that can be found within `patience`. One of a control
    /// member that was cut off and does not know it is passed over.
    pub async fn join(
        &self,
        patience: Duration,
        message: impl Fn() -> JoinTraining,
    ) -> Result<Result<(), JoinRefused>, AskError> {
        let started = tokio::time::Instant::now();
        let mut attempt = 0;
        loop {
            match self.ask(patience, &message).await? {
                Ok(welcome) => match self.obeys(welcome.lease) {
                    Ok(()) => {
                        self.activation.store(welcome.activation, Ordering::Release);
                        return Ok(Ok(()));
                    }
                    Err(stale) => {
                        tracing::warn!(%stale, "a control member runs a job that it has lost");
                        self.turn.fetch_add(1, Ordering::Relaxed);
                    }
                },
                // Another member may be further.
                Err(JoinRefused::NotYet) => {
                    self.turn.fetch_add(1, Ordering::Relaxed);
                }
                Err(refused) => return Ok(Err(refused)),
            }
            if started.elapsed() > patience {
                return Ok(Err(JoinRefused::NotYet));
            }
            tokio::time::sleep(NOT_YET.wait(attempt, random::rng().random_range(0.0..1.0))).await;
            attempt += 1;
        }
    }

    /// Asks the job's actor, trying the members in turn for at most `patience`. `message` is made
    /// anew for each attempt: it must be harmless to repeat.
    pub async fn ask<M>(
        &self,
        patience: Duration,
        message: impl Fn() -> M,
    ) -> Result<M::Reply, AskError>
    where
        M: Message,
        TrainingJobRole: Accepts<M>,
    {
        let started = tokio::time::Instant::now();
        let mut attempt = 0;
        loop {
            let turn = self.turn.load(Ordering::Relaxed);
            let (member, members) = {
                let control = self.control.lock();
                (control.get(turn % control.len().max(1)).cloned(), control.len().max(1))
            };
            let Some(member) = member else {
                let actor = job_actor(&self.job).into();
                return Err(AskError::NoSuchActor { actor });
            };
            let path = ActorPath::new(member.clone(), job_actor(&self.job));
            let error = match self.node.actor::<TrainingJobRole>(path).ask(message(), ANSWER).await
            {
                Ok(reply) => {
                    *self.heard.lock() = clock::now();
                    self.denials.lock().clear();
                    return Ok(reply);
                }
                Err(error) => error,
            };
            self.denies(&member, &error);
            if error.remedy() == Remedy::GiveUp || started.elapsed() > patience {
                return Err(error);
            }
            if error.remedy() != Remedy::Retry {
                let next = self.turn.compare_exchange(
                    turn,
                    turn + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                tracing::debug!(%error, moved_on = next.is_ok(), "the job's actor is elsewhere");
            }
            // Each member is tried at once; only a whole round in vain waits.
            attempt += 1;
            let round = attempt / members;
            if attempt % members == 0 {
                let wait = BACKOFF.wait(round as u32, random::rng().random_range(0.0..1.0));
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// The control members that were told, and behind them some of those that were known before: a member that has just
/// started knows of itself alone, and may be the next to go.
fn with_earlier(told: Vec<NodeName>, known: &[NodeName]) -> Vec<NodeName> {
    let earlier: Vec<NodeName> =
        known.iter().filter(|name| !told.contains(name)).take(KEPT_MEMBERS).cloned().collect();
    [told, earlier].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_runtime::{ClusterAuthority, NodeConfig, PeerRole, PermitAll};

    const DAY: Duration = Duration::from_hours(24);

    fn names(names: &[&str]) -> Vec<NodeName> {
        names.iter().map(|name| NodeName::from(*name)).collect()
    }

    async fn node(authority: &ClusterAuthority, name: &str, role: PeerRole) -> ActorNode {
        let credential = authority.issue(name, role, &["127.0.0.1".to_owned()], DAY).unwrap();
        let gate = Arc::new(PermitAll);
        ActorNode::start(NodeConfig { gate, ..NodeConfig::new(credential) }).await.unwrap()
    }

    #[actix::test]
    async fn a_link_that_is_told_of_one_control_member_does_not_forget_the_others() {
        let authority = ClusterAuthority::create("test").unwrap();
        let guest = node(&authority, "guest", PeerRole::Guest { scope: "job".into() }).await;
        let link = Link::new(guest, "job", names(&["a", "b", "c"]));
        let known = || link.control.lock().clone();
        let tell = |told: &[&str]| {
            let at = |name: &&str| (NodeName::from(*name), SocketAddr::from(([127, 0, 0, 1], 9)));
            link.learn(told.iter().map(at).collect());
        };
        link.turn.store(1, Ordering::Relaxed);
        tell(&["c"]);
        assert_eq!(known(), names(&["c", "a", "b"]));
        assert_eq!(link.turn.load(Ordering::Relaxed), 2, "b runs the job, and is asked first");
        tell(&["a", "b", "c"]);
        assert_eq!(known(), names(&["b", "c", "a"]));
        assert_eq!(link.turn.load(Ordering::Relaxed), 0, "as before");
        // Who is named no more is gone when it does not answer; who is named may answer again.
        tell(&["c"]);
        for member in ["a", "c"] {
            link.denies(&NodeName::from(member), &AskError::Deadline { waited: ANSWER });
        }
        assert_eq!(known(), names(&["c", "b"]));
        // All are replaced, one after the other: those of long ago are asked no more.
        for new in 0..20 {
            let told = [new, new + 1, new + 2].map(|number| format!("m{number}"));
            tell(&told.each_ref().map(String::as_str));
        }
        assert_eq!(known(), names(&["m19", "m20", "m21", "m18", "m17", "m16", "m15"]));
    }

    #[actix::test]
    async fn those_that_are_named_are_asked_before_those_that_are_named_no_more() {
        let authority = ClusterAuthority::create("test").unwrap();
        let guest = node(&authority, "guest", PeerRole::Guest { scope: "job".into() }).await;
        let link = Link::new(guest, "job", names(&["d", "e", "f", "g"]));
        let at = |name: &str| (NodeName::from(name), SocketAddr::from(([127, 0, 0, 1], 9)));
        link.learn(["a", "b", "c"].map(at).into());
        // The job is found at each of them, and told by that one who the members are.
        for (turn, order) in [(2, ["c", "a", "b"]), (1, ["a", "b", "c"]), (0, ["a", "b", "c"])] {
            link.turn.store(turn, Ordering::Relaxed);
            link.learn(["a", "b", "c"].map(at).into());
            let (known, first) = (link.control.lock().clone(), link.turn.load(Ordering::Relaxed));
            let next: Vec<_> = known.iter().cycle().skip(first).take(3).cloned().collect();
            assert_eq!(next, names(&order), "of {known:?}");
            assert_eq!(known.len(), 7, "the others come after them");
        }
    }

    #[actix::test]
    async fn a_job_is_denied_only_by_all_control_members_together() {
        let authority = ClusterAuthority::create("test").unwrap();
        let guest = node(&authority, "guest", PeerRole::Guest { scope: "job".into() }).await;
        let member = node(&authority, "a", PeerRole::Control).await;
        guest.addresses().set(NodeName::from("a"), member.local_addr());
        let ask = |link: Link| async move {
            let message = || ControlMembers { pod_uid: "uid".into() };
            link.ask(Duration::from_millis(200), message).await.unwrap_err()
        };
        let link = Link::new(guest.clone(), "job", names(&["a"]));
        assert_eq!(link.denied(), None, "nobody was asked");
        assert!(matches!(ask(link.clone()).await, AskError::NoSuchActor { .. }));
        let since = link.denied().unwrap();
        ask(link.clone()).await;
        assert_eq!(link.denied(), Some(since), "it is said again");
        // Another that cannot be asked may have it.
        let link = Link::new(guest, "job", names(&["a", "b"]));
        ask(link.clone()).await;
        assert_eq!(link.denied(), None);
    }
}
