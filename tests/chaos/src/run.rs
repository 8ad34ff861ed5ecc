//! One run: drive, break by the schedule, heal, check.

use crate::agreement;
use crate::checks::{Check, Evidence, judge};
use crate::clients::Clients;
use crate::cluster::{Cluster, HarnessError, Session};
use crate::effects::Effects;
use crate::ghosts::Ghosts;
use crate::healed::await_healed;
use crate::history::{History, Outcome};
use crate::observer::Observer;
use crate::rival::Rival;
use crate::schedule::{Fault, Kind, Target, in_seconds, schedule};
use crate::watching::Watchers;
use crate::workload::{self, CONTROLLERS, Churn, JOB};
use impresario_runtime::{
    ActorPath, AskError, CHAOS_ACTOR, ChaosRole, Direction, FaultRule, NodeName, SetFaults,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// How long nodes are asked to take all rules away after the last fault.
const LIFT_ALL_LIMIT: Duration = Duration::from_secs(180);
/// How long a node has to take fault rules.
const RULES_LIMIT: Duration = Duration::from_secs(3);
/// How long a node is asked to take the rules of one fault away; a blackout may have come between.
const LIFT_LIMIT: Duration = Duration::from_secs(10);
/// How long until it is asked again.
const LIFT_AGAIN: Duration = Duration::from_millis(200);

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of the schedule and of the clients.
    pub seed: u64,
    /// How long faults go on.
    pub duration: Duration,
    /// How long the cluster has to heal after the last one.
    pub heal: Duration,
}

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Happened {
    /// When it was due, in seconds since the start.
    pub at_s: f64,
    /// What.
    pub kind: Kind,
    /// To which node; to `all`.
    pub target: String,
    /// Whether that node was hit because it led the registry.
    pub as_leader: bool,
    /// For how long, in seconds.
    pub length_s: f64,
}

/// What a run was made of, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Operations of clients of the registry.
    pub operations: usize,
    /// Of these, done and acknowledged.
    pub acknowledged: usize,
    /// Of these, not done.
    pub failed: usize,
    /// Of these, of an outcome that nobody knows.
    pub unknown: usize,
    /// Pods that were bound to a node.
    pub pods: usize,
    /// Writes by right of a shard's epoch that was over, all refused.
    pub stale_writes: u64,
    /// How long healing took after the last fault, in seconds, the rest of the job included.
    pub healed_s: f64,
    /// How long it took until every replication controller was restored, in seconds.
    pub restored_s: Option<f64>,
    /// How many successes the job still lacked when healing began.
    pub job_left: i64,
}

/// The outcome of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The seed, with which the run can be repeated.
    pub seed: u64,
    /// Whether every promise was kept.
    pub passed: bool,
    /// What the seed says is to happen; the same for the same seed.
    pub schedule: Vec<Fault>,
    /// What was done to the cluster. A fault of a node that is broken already is left out.
    pub faults: Vec<Happened>,
    /// Faults of links that the node did not take in time, so that nobody knows whether they happened.
    pub untaken: Vec<Happened>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// In numbers.
    pub figures: Figures,
    /// Where the logs are.
    pub logs: Vec<PathBuf>,
    /// What clients did and were told.
    #[serde(skip)]
    pub history: History,
}

/// Runs on a cluster that is up and Ready. `told` hears of each fault as it happens.
pub async fn run(
    cluster: Arc<dyn Cluster>,
    plan: &Plan,
    told: impl FnMut(&Happened) + Send,
) -> Result<Report, HarnessError> {
    let session = cluster.session();
    let completions = workload::completions(plan.duration);
    let scratch = cluster.scratch();
    let unwritable = |error: std::io::Error| HarnessError::Workload {
        reason: format!("{}: {error}", scratch.display()),
    };
    workload::set_up(&session, completions, &scratch).await?;
    let observer = Observer::start(&session);
    let watchers = Watchers::start(&session);
    let mut clients = Clients::start(&session, plan.seed);
    let ghosts = Ghosts::start(&session, plan.seed);
    let churn = Churn::start(&session, plan.seed);
    let rival = Rival::start(&session);

    let nodes = cluster.nodes();
    let schedule = schedule(plan.seed, plan.duration, nodes.len());
    let (faults, untaken) =
        break_it(&cluster, &session, &nodes, &schedule, plan.duration, told).await?;
    if let Some(node) = never_taken(&faults, &untaken) {
        return Err(HarnessError::Cluster {
            what: "breaking links".into(),
            reason: format!(
                "no fault of a link was ever taken, last of {node}: is it a chaos cluster?"
            ),
        });
    }
    heal(&*cluster, &session, &nodes).await?;
    churn.finish().await?;
    let healed = await_healed(&session, plan.heal).await;
    rival.finish().await?;
    clients.stop().await?;
    let haunted = ghosts.finish().await?;
    let history = clients.read_all(&session).await;
    let watched = watchers.finish(&session).await;
    let agreement = agreement::look(&session, &nodes, plan.heal).await;
    let seen = observer.seen().await;
    let mut served = Effects::default();
    for (app, _) in CONTROLLERS {
        served.add(Effects::read(&scratch, app).map_err(unwritable)?);
    }
    let worked = Effects::read(&scratch, JOB).map_err(unwritable)?;
    let evidence = Evidence {
        history,
        watched,
        agreement,
        seen: seen.weighed([&served, &worked]),
        healed,
        completions,
        haunted,
        worked,
        served,
    };
    let checks = judge(&evidence);
    let Evidence { history, seen, healed, haunted, .. } = evidence;
    Ok(Report {
        seed: plan.seed,
        passed: checks.iter().all(|check| check.passed),
        schedule,
        faults,
        untaken,
        checks,
        figures: Figures {
            operations: history.registers.len() + history.ledger.len(),
            acknowledged: history.count(Outcome::Ok),
            failed: history.count(Outcome::Failed),
            unknown: history.count(Outcome::Unknown),
            pods: seen.bound.len(),
            stale_writes: haunted.refused,
            healed_s: healed.took.as_secs_f64(),
            restored_s: healed.restored.map(|restored| restored.as_secs_f64()),
            job_left: healed.job_left,
        },
        logs: cluster.logs(),
        history,
    })
}

/// Does what the schedule says, and undoes it. Returns when every fault is over.
async fn break_it(
    cluster: &Arc<dyn Cluster>,
    session: &Session,
    nodes: &[String],
    schedule: &[Fault],
    duration: Duration,
    mut told: impl FnMut(&Happened) + Send,
) -> Result<(Vec<Happened>, Vec<Happened>), HarnessError> {
    let began = Instant::now();
    let broken = Broken::default();
    let mut repairs = JoinSet::new();
    let (mut faults, mut untaken) = (Vec::new(), Vec::new());
    for fault in schedule.iter().copied() {
        sleep_until(began + fault.at).await;
        let node = target(&**cluster, nodes, fault).await;
        let begun = begin(&**cluster, session, nodes, &broken, &node, fault).await?;
        if begun == Begun::BrokenAlready {
            continue;
        }
        let happened = Happened {
            at_s: in_seconds(fault.at),
            kind: fault.kind,
            target: node.clone(),
            as_leader: fault.target == Target::Leader,
            length_s: in_seconds(fault.length),
        };
        if begun == Begun::Untaken {
            untaken.push(happened);
        } else {
            told(&happened);
            faults.push(happened);
        }
        let (cluster, session, broken) = (cluster.clone(), session.clone(), broken.clone());
        let names = nodes.to_vec();
        repairs.spawn(async move {
            sleep_until(began + fault.at + fault.length).await;
            end(&*cluster, &session, &names, &broken, &node, fault).await
        });
    }
    sleep_until(began + duration).await;
    while let Some(repaired) = repairs.join_next().await {
        repaired.map_err(HarnessError::lost("repairing"))??;
    }
    Ok((faults, untaken))
}

/// The node that was to be cut off, slowed or deafened last, when nothing of that sort ever came to be.
fn never_taken<'a>(faults: &[Happened], untaken: &'a [Happened]) -> Option<&'a str> {
    let is_taken = faults.iter().any(|fault| fault.kind.is_of_links());
    untaken.last().filter(|_| !is_taken).map(|fault| &*fault.target)
}

/// What is said to be hit by a fault of all nodes.
const ALL: &str = "all";

/// The node that a fault hits. While there is no leader, a fault of the leader hits a node that the
/// time of the fault decides.
async fn target(cluster: &dyn Cluster, nodes: &[String], fault: Fault) -> String {
    let number = match fault.target {
        Target::Node(number) => number,
        Target::All => return ALL.to_owned(),
        Target::Leader => match cluster.leader().await {
            Some(leader) => return leader,
            None => usize::try_from(fault.at.as_millis()).unwrap_or(0),
        },
    };
    nodes.get(number.checked_rem(nodes.len()).unwrap_or(0)).cloned().unwrap_or_default()
}

/// What is broken now: faults of one node do not pile up, and links have the rules of all faults.
#[derive(Clone, Default)]
struct Broken(Arc<Mutex<BTreeMap<String, Kind>>>);

/// What became of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    /// It happened.
    Yes,
    /// The node is broken already, and stays as it is.
    BrokenAlready,
    /// The node did not say that it has the rules; it may have them.
    Untaken,
}

/// Breaks the node.
async fn begin(
    cluster: &dyn Cluster,
    session: &Session,
    nodes: &[String],
    broken: &Broken,
    node: &str,
    fault: Fault,
) -> Result<Begun, HarnessError> {
    let mut state = broken.0.lock().await;
    if state.contains_key(node) {
        return Ok(Begun::BrokenAlready);
    }
    state.insert(node.to_owned(), fault.kind);
    match fault.kind {
        Kind::Kill => cluster.kill(node).await?,
        Kind::Blackout => {
            // Whatever else is broken about a node: its power fails, too.
            for node in nodes {
                cluster.kill(node).await?;
            }
        }
        Kind::Pause => cluster.pause(node)?,
        Kind::Isolate | Kind::Deafen | Kind::Lose | Kind::Delay => {
            let rules = rules(nodes, node, fault.kind);
            // Anybody takes those, and nothing happens.
            if rules.is_empty() {
                return Err(HarnessError::Cluster {
                    what: format!("breaking the links of {node}"),
                    reason: format!(
                        "{:?} has no rules there: the cluster must have more nodes than one",
                        fault.kind
                    ),
                });
            }
            if set_rules(session, node, rules).await.is_err() {
                return Ok(Begun::Untaken);
            }
        }
    }
    Ok(Begun::Yes)
}

async fn end(
    cluster: &dyn Cluster,
    session: &Session,
    nodes: &[String],
    broken: &Broken,
    node: &str,
    fault: Fault,
) -> Result<(), HarnessError> {
    match fault.kind {
        Kind::Kill => cluster.start(node).await?,
        Kind::Blackout => {
            let state = broken.0.lock().await;
            // One that was killed before, by itself, comes back in its own time.
            for node in nodes.iter().filter(|node| state.get(*node) != Some(&Kind::Kill)) {
                cluster.start(node).await?;
            }
        }
        Kind::Pause => cluster.resume(node)?,
        Kind::Isolate | Kind::Deafen | Kind::Lose | Kind::Delay => {
            if let Err(reason) = lift(session, node, LIFT_LIMIT).await {
                tracing::debug!(node, %reason, "fault rules stay until all is healed");
            }
        }
    }
    broken.0.lock().await.remove(node);
    Ok(())
}

/// The rules by which a fault acts, on the node that it hits.
fn rules(nodes: &[String], node: &str, kind: Kind) -> Vec<FaultRule> {
    let others = nodes.iter().filter(|other| *other != node);
    others
        .flat_map(|other| {
            [Direction::Send, Direction::Receive].into_iter().filter_map(move |direction| {
                let mut rule = FaultRule::new(Some(NodeName::from(other.as_str())), direction);
                match (kind, direction) {
                    (Kind::Isolate, _) | (Kind::Deafen, Direction::Receive) => rule.cut = true,
                    (Kind::Lose, _) => {
                        // A lost frame costs its connection, so that more of them would be a cut.
                        rule.drop = 0.03;
                        rule.duplicate = 0.1;
                    }
                    (Kind::Delay, Direction::Send) => {
                        rule.delay = Duration::from_millis(150);
                        rule.reorder = 0.2;
                        rule.duplicate = 0.1;
                    }
                    _ => return None,
                }
                Some(rule)
            })
        })
        .collect()
}

async fn set_rules(session: &Session, node: &str, rules: Vec<FaultRule>) -> Result<(), AskError> {
    let path = ActorPath::new(NodeName::from(node), CHAOS_ACTOR);
    let chaos = session.node.actor::<ChaosRole>(path);
    chaos.ask(SetFaults { rules }, RULES_LIMIT).await
}

/// Takes all rules of a node away, however busy it is: one that kept them would go on as if it were broken.
async fn lift(session: &Session, node: &str, patience: Duration) -> Result<(), AskError> {
    let deadline = Instant::now() + patience;
    loop {
        match set_rules(session, node, Vec::new()).await {
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => sleep(LIFT_AGAIN).await,
            Ok(()) => return Ok(()),
        }
    }
}

/// Ends every fault: all processes run, no rule is left.
async fn heal(
    cluster: &dyn Cluster,
    session: &Session,
    nodes: &[String],
) -> Result<(), HarnessError> {
    for node in nodes {
        cluster.resume(node)?;
        cluster.start(node).await?;
    }
    for node in nodes {
        lift(session, node, LIFT_ALL_LIMIT).await.map_err(|error| HarnessError::Cluster {
            what: format!("taking the faults of {node} away"),
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_of_a_link_has_rules_that_do_something() {
        let nodes = ["a", "b", "c"].map(str::to_owned);
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_of_links()) {
            let rules = rules(&nodes, "b", kind);
            let none = |direction| FaultRule::new(None, direction);
            let of = |other: &str| {
                let mut own = rules.iter().filter(|rule| rule.peer == Some(NodeName::from(other)));
                own.any(|rule| FaultRule { peer: None, ..rule.clone() } != none(rule.direction))
            };
            assert!(of("a") && of("c") && !of("b"), "{kind:?}: {rules:?}");
        }
        assert!(rules(&nodes[..1], "a", Kind::Isolate).is_empty(), "which is refused");
    }

    #[test]
    fn a_run_whose_links_were_never_broken_is_none() {
        let happened = |kind: Kind| Happened {
            at_s: 1.0,
            kind,
            target: "node-2".into(),
            as_leader: false,
            length_s: 1.0,
        };
        let (kill, cut) = (happened(Kind::Kill), happened(Kind::Isolate));
        for (faults, untaken, never) in [
            (vec![kill.clone()], vec![cut.clone()], Some("node-2")),
            (vec![kill.clone(), cut.clone()], vec![cut.clone()], None),
            (vec![kill], Vec::new(), None),
        ] {
            assert_eq!(never_taken(&faults, &untaken), never, "{faults:?} {untaken:?}");
        }
    }
}
