//! Breaks one promise at a time, so that a test sees each check fail. Part of the harness alone.
//!
//! It is the cluster that is broken, behind the back of those who are checked: what is written to
//! the registry here, no client and no controller knows of.

use crate::checks::Promise;
use crate::clients::{ledger_key, register_key, stored};
use crate::cluster::{HarnessError, Session};
use crate::observer::{Observer, Seen};
use crate::workload::{CONTROLLERS, NAMESPACE};
use impresario_registry_api::{
    Consistency, Entry, Key, ListRequest, Operation as Write, Selection, Transaction,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the observer has to see what was broken.
const SEEN_LIMIT: Duration = Duration::from_secs(10);
/// A value that no client ever writes.
const FOREIGN: u64 = u64::MAX;

fn failed(reason: impl ToString) -> HarnessError {
    HarnessError::Cluster { what: "sabotage".into(), reason: reason.to_string() }
}

/// How many completions the job is given where `promised` are promised.
pub(crate) fn completions(promise: Option<Promise>, promised: i64) -> i64 {
    promised + i64::from(promise == Some(Promise::JobExact))
}

/// What must be broken while the cluster heals: fewer replicas are asked for than are promised.
pub(crate) async fn before_healing(
    session: &Session,
    promise: Promise,
) -> Result<(), HarnessError> {
    if promise != Promise::ReplicasRestored {
        return Ok(());
    }
    edit(session, "replicationcontrollers", CONTROLLERS[0].0, |controller| {
        controller["spec"]["replicas"] = (CONTROLLERS[0].1 - 1).into();
    })
    .await
}

/// What is broken when the cluster has healed and the clients have stopped, before they read once more.
/// `acknowledged` is a ledger entry whose write was acknowledged.
pub(crate) async fn after_healing(
    session: &Session,
    promise: Promise,
    acknowledged: u64,
    observer: &Observer,
) -> Result<(), HarnessError> {
    match promise {
        Promise::NoLostWrite => {
            write(session, Write::Delete { key: ledger_key(acknowledged) }).await
        }
        Promise::Linearizable => {
            let (key, value) = (register_key(0), stored(FOREIGN));
            write(session, Write::Put { key, value }).await
        }
        Promise::BoundOnce => {
            let (pod, node) = some_pod(session).await?;
            let other = session.members.iter().find(|member| **member != node);
            let other = other.ok_or_else(|| failed("there is one node only"))?.as_str();
            edit(session, "pods", &pod.key.name, |pod| {
                pod["spec"]["nodeName"] = other.into();
                // So small that it over-commits nobody.
                pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "0".into();
            })
            .await?;
            await_seen(observer, |seen| seen.bound.values().any(|nodes| nodes.len() > 1)).await
        }
        Promise::NotOvercommitted => {
            let (pod, _) = some_pod(session).await?;
            edit(session, "pods", &pod.key.name, |pod| {
                pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1000".into();
            })
            .await?;
            let is_huge = |milli: u64| milli >= 1_000_000;
            await_seen(observer, |seen| seen.carried.values().any(|(milli, _)| is_huge(*milli)))
                .await
        }
        Promise::ReplicasRestored | Promise::JobExact => Ok(()),
    }
}

async fn await_seen(
    observer: &Observer,
    holds: impl Fn(&Seen) -> bool,
) -> Result<(), HarnessError> {
    let deadline = Instant::now() + SEEN_LIMIT;
    while Instant::now() < deadline {
        if holds(&observer.seen().await) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(failed("nobody saw it"))
}

/// A pod of the first controller, and the node that it is bound to.
async fn some_pod(session: &Session) -> Result<(Entry, String), HarnessError> {
    let list = ListRequest::of(Selection::all("pods").within(NAMESPACE));
    let page = session.registry.list(list).await.map_err(failed)?;
    let bound = page.entries.into_iter().find_map(|entry| {
        let pod: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        let node = pod["spec"]["nodeName"].as_str()?.to_owned();
        (pod["metadata"]["labels"]["app"] == CONTROLLERS[0].0).then_some((entry, node))
    });
    bound.ok_or_else(|| failed("no pod is bound"))
}

async fn edit(
    session: &Session,
    resource: &str,
    name: &str,
    change: impl Fn(&mut Value),
) -> Result<(), HarnessError> {
    let key = Key::new(resource, NAMESPACE, name);
    let read = session.registry.get(key.clone(), Consistency::Linearizable).await;
    let entry = read.map_err(failed)?.0.ok_or_else(|| failed(format!("{key} is gone")))?;
    let mut object: Value = serde_json::from_slice(&entry.value).unwrap_or_else(|_| json!({}));
    change(&mut object);
    write(session, Write::Put { key, value: object.to_string().into_bytes().into() }).await
}

async fn write(session: &Session, operation: Write) -> Result<(), HarnessError> {
    let transaction = Transaction { operations: vec![operation], ..Transaction::default() };
    session.registry.transact(transaction).await.map(drop).map_err(failed)
}
