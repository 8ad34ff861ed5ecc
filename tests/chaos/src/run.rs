//! One run: drive, break by the schedule, heal, check.

use crate::checks::{Check, Healed, Promise, judge};
use crate::cluster::{Cluster, HarnessError, Session};
use crate::history::Operation;
use crate::observer::Observer;
use crate::sabotage;
use crate::schedule::{Fault, Kind, Target, schedule};
use crate::workload::{self, COMPLETIONS, Clients, NAME, NAMESPACE, REPLICAS};
use impresario_registry::{Consistency, Key};
use impresario_runtime::{
    ActorPath, CHAOS_ACTOR, ChaosRole, Direction, FaultRule, NodeName, SetFaults,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// How long the cluster has to heal after the last fault.
const HEAL_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(250);
/// How long a node has to take fault rules.
const RULES_LIMIT: Duration = Duration::from_secs(3);

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of the schedule and of the clients.
    pub seed: u64,
    /// How long faults go on.
    pub duration: Duration,
    /// Breaks this promise on purpose, to see that its check fails. Never set for a real run.
    pub sabotage: Option<Promise>,
}

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Happened {
    /// When, in seconds since the start.
    pub at_s: f64,
    /// What.
    pub kind: Kind,
    /// To which node.
    pub target: String,
    /// For how long, in seconds.
    pub length_s: f64,
}

/// The outcome of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The seed, with which the run can be repeated.
    pub seed: u64,
    /// Whether every promise was kept.
    pub passed: bool,
    /// What was done to the cluster.
    pub faults: Vec<Happened>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// Where the logs are.
    pub logs: Vec<PathBuf>,
    /// What clients did and were told; in the report of a failed run only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Operation>,
}

/// Runs on a cluster that is up and Ready. `told` hears of each fault as it happens.
pub async fn run(
    cluster: Arc<dyn Cluster>,
    plan: &Plan,
    mut told: impl FnMut(&Happened) + Send,
) -> Result<Report, HarnessError> {
    let session = cluster.session();
    workload::set_up(&session).await?;
    let observer = Observer::start(&session);
    let clients = Clients::start(&session, plan.seed);

    let nodes = cluster.nodes();
    let began = Instant::now();
    let broken = Broken::default();
    let mut repairs = JoinSet::new();
    let mut faults = Vec::new();
    for fault in schedule(plan.seed, plan.duration, nodes.len()) {
        sleep_until(began + fault.at).await;
        let Some(node) = target(&*cluster, &nodes, fault.target).await else { continue };
        let happened = Happened {
            at_s: began.elapsed().as_secs_f64(),
            kind: fault.kind,
            target: node.clone(),
            length_s: fault.length.as_secs_f64(),
        };
        if !begin(&*cluster, &session, &nodes, &broken, &node, fault).await? {
            continue;
        }
        told(&happened);
        faults.push(happened);
        let (cluster, session, nodes, broken) =
            (cluster.clone(), session.clone(), nodes.clone(), broken.clone());
        repairs.spawn(async move {
            sleep(fault.length).await;
            end(&*cluster, &session, &nodes, &broken, &node, fault).await
        });
    }
    sleep_until(began + plan.duration).await;
    while let Some(repaired) = repairs.join_next().await {
        match repaired {
            Ok(outcome) => outcome?,
            Err(error) => {
                return Err(HarnessError::Cluster {
                    what: "repairing".into(),
                    reason: error.to_string(),
                });
            }
        }
    }
    heal(&*cluster, &session, &nodes).await?;
    if let Some(promise) = plan.sabotage {
        sabotage::before_healing(&session, promise).await?;
    }
    let healed = await_healed(&session).await;
    let mut history = clients.finish(&session).await?;
    let mut seen = observer.seen().await;
    if let Some(promise) = plan.sabotage {
        sabotage::after_healing(&session, promise, &mut history, &mut seen, &observer).await?;
    }
    let checks = judge(&history, &seen, &healed);
    let passed = checks.iter().all(|check| check.passed);
    if passed {
        history.clear();
    }
    Ok(Report { seed: plan.seed, passed, faults, checks, logs: cluster.logs(), history })
}

async fn target(cluster: &dyn Cluster, nodes: &[String], target: Target) -> Option<String> {
    match target {
        Target::Leader => cluster.leader().await,
        Target::Node(number) => nodes.get(number).cloned(),
    }
}

/// What is broken now: faults of one node do not pile up, and links have the rules of all faults.
#[derive(Clone, Default)]
struct Broken(Arc<Mutex<BTreeMap<String, Kind>>>);

/// Breaks the node. False if it is broken already.
async fn begin(
    cluster: &dyn Cluster,
    session: &Session,
    nodes: &[String],
    broken: &Broken,
    node: &str,
    fault: Fault,
) -> Result<bool, HarnessError> {
    let mut state = broken.0.lock().await;
    if state.contains_key(node) {
        return Ok(false);
    }
    state.insert(node.to_owned(), fault.kind);
    match fault.kind {
        Kind::Kill => cluster.kill(node)?,
        Kind::Pause => cluster.pause(node)?,
        Kind::Isolate | Kind::Deafen | Kind::Lose | Kind::Delay => {
            set_rules(session, node, rules(nodes, node, fault.kind)).await;
        }
    }
    Ok(true)
}

async fn end(
    cluster: &dyn Cluster,
    session: &Session,
    _nodes: &[String],
    broken: &Broken,
    node: &str,
    fault: Fault,
) -> Result<(), HarnessError> {
    match fault.kind {
        Kind::Kill => cluster.start(node)?,
        Kind::Pause => cluster.resume(node)?,
        Kind::Isolate | Kind::Deafen | Kind::Lose | Kind::Delay => {
            set_rules(session, node, Vec::new()).await;
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
                    (Kind::Lose, _) => rule.drop = 0.3,
                    (Kind::Delay, Direction::Send) => {
                        rule.delay = Duration::from_millis(150);
                        rule.reorder = 0.2;
                    }
                    _ => return None,
                }
                Some(rule)
            })
        })
        .collect()
}

/// A node that cannot be told is down or paused, and starts without rules.
async fn set_rules(session: &Session, node: &str, rules: Vec<FaultRule>) {
    let path = ActorPath::new(NodeName::from(node), CHAOS_ACTOR);
    let chaos = session.node.actor::<ChaosRole>(path);
    if let Err(error) = chaos.ask(SetFaults { rules }, RULES_LIMIT).await {
        tracing::debug!(node, %error, "fault rules were not taken");
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
        cluster.start(node)?;
    }
    for node in nodes {
        set_rules(session, node, Vec::new()).await;
    }
    Ok(())
}

async fn await_healed(session: &Session) -> Healed {
    let began = Instant::now();
    let mut healed = Healed::default();
    while began.elapsed() < HEAL_LIMIT {
        if let Some((ready, job)) = look(session).await {
            healed = Healed { ready, job, took: began.elapsed() };
            if ready == REPLICAS && job == (COMPLETIONS, true) {
                break;
            }
        }
        sleep(LOOK).await;
    }
    healed
}

async fn look(session: &Session) -> Option<(i64, (i64, bool))> {
    let get = async |resource: &str| {
        let key = Key::new(resource, NAMESPACE, NAME);
        let (entry, _) = session.registry.get(key, Consistency::Linearizable).await.ok()?;
        serde_json::from_slice::<Value>(&entry?.value).ok()
    };
    let controller = get("replicationcontrollers").await?;
    let job = get("batch/jobs").await?;
    let complete = job["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|c| c["type"] == "Complete" && c["status"] == "True"));
    Some((
        controller["status"]["readyReplicas"].as_i64().unwrap_or(0),
        (job["status"]["succeeded"].as_i64().unwrap_or(0), complete),
    ))
}
