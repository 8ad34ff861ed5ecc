//! Breaks one promise at a time, so that a test sees each check fail. Part of the harness alone.
//!
//! What is broken is the cluster where it can be (a pod deleted behind the controller's back, a
//! binding overwritten), and what the clients saw where the cluster gives no way to break it.

use crate::checks::Promise;
use crate::cluster::{HarnessError, Session};
use crate::history::{Action, Operation, Outcome};
use crate::observer::{Observer, Seen};
use crate::workload::{NAME, NAMESPACE};
use impresario_registry::{
    Consistency, Entry, Key, ListRequest, Operation as Write, Selection, Transaction,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the observer has to see what was broken.
const SEEN_LIMIT: Duration = Duration::from_secs(10);

/// What must be broken while the cluster heals.
pub(crate) async fn before_healing(
    session: &Session,
    promise: Promise,
) -> Result<(), HarnessError> {
    match promise {
        // One replica fewer is asked for than is promised.
        Promise::ReplicasRestored => {
            edit(session, "replicationcontrollers", NAME, |rc| rc["spec"]["replicas"] = 2.into())
                .await
        }
        // The job runs one completion more than was asked for.
        Promise::JobExact => {
            edit(session, "batch/jobs", NAME, |job| job["spec"]["completions"] = 13.into()).await
        }
        _ => Ok(()),
    }
}

/// What is broken when it has healed.
pub(crate) async fn after_healing(
    session: &Session,
    promise: Promise,
    history: &mut Vec<Operation>,
    seen: &mut Seen,
    observer: &Observer,
) -> Result<(), HarnessError> {
    match promise {
        Promise::NoLostWrite => {
            // A client was told that its write is done, and it never was.
            let last = history.iter().map(|op| op.called).max().unwrap_or_default();
            for operation in history.iter_mut().filter(|op| op.client == u32::MAX) {
                operation.called += Duration::from_secs(2);
                operation.returned += Duration::from_secs(2);
            }
            history.push(Operation {
                client: u32::MAX - 1,
                register: 0,
                action: Action::Write { value: u64::MAX },
                outcome: Outcome::Ok,
                called: last + Duration::from_secs(1),
                returned: last + Duration::from_secs(1),
            });
            Ok(())
        }
        Promise::Linearizable => {
            // A client read a value that nobody ever wrote.
            history.push(Operation {
                client: u32::MAX - 1,
                register: 0,
                action: Action::Read { seen: Some(u64::MAX) },
                outcome: Outcome::Ok,
                called: Duration::ZERO,
                returned: Duration::from_millis(1),
            });
            Ok(())
        }
        Promise::BoundOnce => {
            let pod = some_pod(session).await?;
            let name = pod.key.name.clone();
            edit(session, "pods", &name, |pod| pod["spec"]["nodeName"] = "node-elsewhere".into())
                .await?;
            await_seen(seen, observer, |seen| seen.bound.values().any(|nodes| nodes.len() > 1))
                .await
        }
        Promise::NotOvercommitted => {
            let pod = some_pod(session).await?;
            let name = pod.key.name.clone();
            edit(session, "pods", &name, |pod| {
                pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1000".into();
            })
            .await?;
            await_seen(seen, observer, |seen| {
                seen.carried.values().any(|(milli, _)| *milli >= 1_000_000)
            })
            .await
        }
        Promise::ReplicasRestored | Promise::JobExact => Ok(()),
    }
}

async fn await_seen(
    seen: &mut Seen,
    observer: &Observer,
    holds: impl Fn(&Seen) -> bool,
) -> Result<(), HarnessError> {
    let deadline = Instant::now() + SEEN_LIMIT;
    while Instant::now() < deadline {
        *seen = observer.seen().await;
        if holds(seen) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(HarnessError::Cluster { what: "sabotage".into(), reason: "nobody saw it".into() })
}

async fn some_pod(session: &Session) -> Result<Entry, HarnessError> {
    let failed = |reason: String| HarnessError::Cluster { what: "sabotage".into(), reason };
    let list = ListRequest::of(Selection::all("pods").within(NAMESPACE));
    let page = session.registry.list(list).await.map_err(|error| failed(error.to_string()))?;
    let bound = page.entries.into_iter().find(|entry| {
        let pod: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        pod["metadata"]["labels"]["app"] == NAME && pod["spec"]["nodeName"].is_string()
    });
    bound.ok_or_else(|| failed("no pod is bound".into()))
}

async fn edit(
    session: &Session,
    resource: &str,
    name: &str,
    change: impl Fn(&mut Value),
) -> Result<(), HarnessError> {
    let failed = |reason: String| HarnessError::Cluster { what: "sabotage".into(), reason };
    let key = Key::new(resource, NAMESPACE, name);
    let (entry, _) = session
        .registry
        .get(key.clone(), Consistency::Linearizable)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let entry = entry.ok_or_else(|| failed(format!("{key} is gone")))?;
    let mut object: Value = serde_json::from_slice(&entry.value).unwrap_or_else(|_| json!({}));
    change(&mut object);
    let operation = Write::Put { key, value: object.to_string().into_bytes().into() };
    let transaction = Transaction { operations: vec![operation], ..Transaction::default() };
    session.registry.transact(transaction).await.map_err(|error| failed(error.to_string()))?;
    Ok(())
}
