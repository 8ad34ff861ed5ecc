//! What the cluster has to do while it is broken: registers that clients read, write and swap, a
//! replication controller, and a job.

use crate::cluster::{HarnessError, Session};
use crate::history::{Action, Operation, Outcome};
use impresario_client::objects::{Objects, WriteOptions};
use impresario_registry::{
    Compare, Consistency, Key, Operation as Write, Remedy, TransactError, Transaction,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

/// Clients at once. Few, so that a history stays decidable.
const CLIENTS: u32 = 6;
/// Registers that they share.
const REGISTERS: u32 = 4;
/// The mean pause of a client between two operations.
const PAUSE: Duration = Duration::from_millis(60);
/// The resource under which the registers are kept; nobody else looks there.
const RESOURCE: &str = "chaos.impresario.dev/registers";
/// Pods of the replication controller.
pub const REPLICAS: i64 = 3;
/// Completions of the job.
pub const COMPLETIONS: i64 = 12;
/// The namespace of the controller and the job.
pub const NAMESPACE: &str = "default";
/// The name of both.
pub const NAME: &str = "chaos";

/// A register as the registry stores it.
pub(crate) fn key(register: u32) -> Key {
    Key::new(RESOURCE, "", format!("r{register}"))
}

/// A register's value in an entry.
pub(crate) fn value(bytes: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(bytes).ok()?["value"].as_u64()
}

/// The clients of the registers. They work until told to stop.
pub struct Clients {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    history: Arc<Mutex<Vec<Operation>>>,
    began: Instant,
}

impl Clients {
    /// Starts the clients.
    #[must_use]
    pub fn start(session: &Session, seed: u64) -> Self {
        let (stop, stopping) = watch::channel(false);
        let shared = Arc::new(Shared {
            session: session.clone(),
            history: Arc::default(),
            began: Instant::now(),
            values: AtomicU64::new(1),
            clients: AtomicU32::new(CLIENTS),
        });
        let mut tasks = JoinSet::new();
        for client in 0..CLIENTS {
            let random = StdRng::seed_from_u64(seed ^ (u64::from(client) << 32));
            tasks.spawn(run(shared.clone(), client, random, stopping.clone()));
        }
        Self { tasks, stop, history: shared.history.clone(), began: shared.began }
    }

    /// The clients stop after what they are at; then every register is read once more.
    pub async fn finish(mut self, session: &Session) -> Result<Vec<Operation>, HarnessError> {
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
        let mut history = std::mem::take(&mut *self.history.lock().await);
        for register in 0..REGISTERS {
            let called = self.began.elapsed();
            let seen = read(session, register).await.ok_or_else(|| HarnessError::Workload {
                reason: format!("register {register} cannot be read after healing"),
            })?;
            history.push(Operation {
                client: u32::MAX,
                register,
                action: Action::Read { seen },
                outcome: Outcome::Ok,
                called,
                returned: self.began.elapsed(),
            });
        }
        Ok(history)
    }
}

struct Shared {
    session: Session,
    history: Arc<Mutex<Vec<Operation>>>,
    began: Instant,
    /// The next value: each is written once, so that a read names its write.
    values: AtomicU64,
    /// The next client number, for one that goes on after an unknown outcome.
    clients: AtomicU32,
}

async fn run(
    shared: Arc<Shared>,
    mut client: u32,
    mut random: StdRng,
    mut stopping: watch::Receiver<bool>,
) {
    let mut known = [None; REGISTERS as usize];
    while !*stopping.borrow() {
        let register = random.random_range(0..REGISTERS);
        let fresh = || shared.values.fetch_add(1, Ordering::Relaxed);
        let wish = match random.random_range(0..10) {
            0..=3 => Action::Read { seen: None },
            4..=6 => Action::Write { value: fresh() },
            _ => Action::Swap { expected: known[register as usize], value: fresh() },
        };
        let called = shared.began.elapsed();
        let (action, outcome) = perform(&shared.session, register, wish).await;
        let returned = shared.began.elapsed();
        known[register as usize] = match (action, outcome) {
            (Action::Read { seen }, Outcome::Ok) => seen,
            (Action::Write { value } | Action::Swap { value, .. }, Outcome::Ok) => Some(value),
            _ => known[register as usize],
        };
        let operation = Operation { client, register, action, outcome, called, returned };
        shared.history.lock().await.push(operation);
        if outcome == Outcome::Unknown {
            client = shared.clients.fetch_add(1, Ordering::Relaxed);
        }
        let pause = PAUSE.mul_f64(random.random_range(0.5..1.5));
        let _ = tokio::time::timeout(pause, stopping.wait_for(|stop| *stop)).await;
    }
}

async fn read(session: &Session, register: u32) -> Option<Option<u64>> {
    let answer = session.registry.get(key(register), Consistency::Linearizable).await.ok()?;
    Some(answer.0.and_then(|entry| value(&entry.value)))
}

async fn perform(session: &Session, register: u32, wish: Action) -> (Action, Outcome) {
    match wish {
        Action::Read { .. } => match read(session, register).await {
            Some(seen) => (Action::Read { seen }, Outcome::Ok),
            None => (wish, Outcome::Unknown),
        },
        Action::Write { value } => (wish, write(session, register, value, Vec::new()).await),
        Action::Swap { expected, value: new } => {
            // The compare is on the revision of the value that is expected, as every controller does.
            let key = key(register);
            let compare = match session.registry.get(key.clone(), Consistency::Linearizable).await {
                Err(_) => return (wish, Outcome::Unknown),
                Ok((None, _)) if expected.is_none() => Compare::Absent { key },
                Ok((Some(entry), _)) if value(&entry.value) == expected => {
                    Compare::Revision { key, revision: entry.mod_revision }
                }
                // Seen to be something else: that was true when it was read.
                Ok(_) => return (wish, Outcome::Refused),
            };
            (wish, write(session, register, new, vec![compare]).await)
        }
    }
}

async fn write(session: &Session, register: u32, value: u64, compares: Vec<Compare>) -> Outcome {
    let operation = Write::Put {
        key: key(register),
        value: json!({ "value": value }).to_string().into_bytes().into(),
    };
    let transaction =
        Transaction { compares, operations: vec![operation], ..Transaction::default() };
    match session.registry.transact(transaction).await {
        Ok(_) => Outcome::Ok,
        Err(TransactError::Conflict { .. }) => Outcome::Refused,
        Err(error) if error.remedy() == Remedy::Retry => Outcome::Refused,
        Err(_) => Outcome::Unknown,
    }
}

/// The replication controller and the job.
pub async fn set_up(session: &Session) -> Result<(), HarnessError> {
    let objects = Objects::new(session.registry.clone());
    let failed =
        |status: &dyn std::fmt::Display| HarnessError::Workload { reason: status.to_string() };
    let pod = |app: &str, restart: &str, command: &[&str]| {
        json!({
            "metadata": { "labels": { "app": app } },
            "spec": {
                "restartPolicy": restart,
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "c", "image": "none", "command": command,
                    "resources": { "requests": { "cpu": "10m", "memory": "1Mi" } },
                }],
            },
        })
    };
    let controller = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": NAME },
        "spec": {
            "replicas": REPLICAS,
            "selector": { "app": NAME },
            "template": pod(NAME, "Always", &["sleep", "100000"]),
        },
    });
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": NAME },
        "spec": {
            "completions": COMPLETIONS,
            "parallelism": 2,
            // A pod that a fault kills is a failure of the pod, not of the job.
            "backoffLimit": 1000,
            "template": pod("chaos-job", "OnFailure", &["sleep", "3"]),
        },
    });
    for (group, plural, object) in
        [("", "replicationcontrollers", controller), ("batch", "jobs", job)]
    {
        let resource = impresario_api::resource::find(group, "v1", plural)
            .ok_or_else(|| failed(&format!("{plural} are not served")))?;
        let options = WriteOptions::default();
        objects.create(resource, NAMESPACE, object, &options).await.map_err(|e| failed(&e))?;
    }
    Ok(())
}
