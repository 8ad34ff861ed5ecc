//! A scheduler beside the cluster's own, that has no picture of the nodes: it asks one after the other for
//! room for every pod that names it, and binds where room is granted. Only the nodes keep it, and the other
//! one, from giving what is not there (`docs/architecture.md`: no number of schedulers can over-commit them).

use crate::cluster::{HarnessError, Session};
use crate::held::resources;
use crate::workload::{NAMESPACE, RIVAL};
use impresario_client::protocol::node::{
    Grant, Lease, NODE, NodeRole, PodReservation, Release, Reserve,
};
use impresario_objects::{Binding, Objects, WriteOptions};
use impresario_registry_api::{ListRequest, Selection};
use impresario_runtime::{ActorPath, NodeName};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// The pause between two looks for pods without a node.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a node has to answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How long room is kept: longer than a write that nobody answered can take to be done.
const TTL: Duration = Duration::from_secs(15);
/// How long a look, or a write, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The rival; it ends when dropped.
pub struct Rival {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rival {
    /// Starts to schedule.
    #[must_use]
    pub fn start(session: &Session) -> Self {
        let (stop, mut stopping) = watch::channel(false);
        let session = Session { registry: session.roaming(), ..session.clone() };
        let task = tokio::spawn(async move {
            let mut turn = 0;
            while !*stopping.borrow() {
                match timeout(PATIENCE, waiting(&session)).await {
                    Ok(Ok(pods)) => {
                        for pod in pods {
                            turn += 1;
                            let Some(node) = session.members.get(turn % session.members.len())
                            else {
                                return;
                            };
                            place(&session, &pod, node).await;
                        }
                    }
                    Ok(Err(reason)) => tracing::debug!(reason, "the rival sees nothing"),
                    Err(_) => {}
                }
                let _ = timeout(PAUSE, stopping.wait_for(|stop| *stop)).await;
            }
        });
        Self { task, stop }
    }

    /// Ends after what it is at.
    pub async fn finish(mut self) -> Result<(), HarnessError> {
        let _ = self.stop.send(true); // it may have ended
        (&mut self.task).await.map_err(HarnessError::lost("binding as a rival"))
    }
}

/// The pods that ask for the rival and have no node.
async fn waiting(session: &Session) -> Result<Vec<Value>, String> {
    let list = ListRequest::of(Selection::all("pods").within(NAMESPACE));
    let page = session.registry.list(list).await.map_err(|error| error.to_string())?;
    let pods = page.entries.iter().filter_map(|entry| {
        let pod: Value = serde_json::from_slice(&entry.value).ok()?;
        waits(&pod).then_some(pod)
    });
    Ok(pods.collect())
}

fn waits(pod: &Value) -> bool {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    pod["spec"]["schedulerName"] == RIVAL
        && node.is_empty()
        && pod["metadata"]["deletionTimestamp"].is_null()
}

async fn place(session: &Session, pod: &Value, node: &str) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, uid) = (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]));
    let actor = session.node.actor::<NodeRole>(ActorPath::new(NodeName::from(node), NODE));
    let pods = vec![PodReservation { uid: uid.clone(), resources: resources(pod) }];
    let granted = match actor.ask(Reserve { pods, ttl: TTL }, ASK_LIMIT).await {
        Ok(granted) => granted,
        Err(error) => return tracing::debug!(node, %error, "the rival was not answered"),
    };
    let Some(Grant::Reserved { lease, .. }) = granted.first() else { return };
    let binding = Binding { uid: Some(uid), ..Binding::to(node) };
    let objects = Objects::new(session.registry.clone());
    let options = WriteOptions::default();
    let bound = objects.bind(NAMESPACE, &name, &binding, &options);
    // Whether a write without an answer was done nobody knows: its room stays kept.
    if let Ok(Err(status)) = timeout(PATIENCE, bound).await
        && matches!(status.code(), 404 | 409)
    {
        let leases: Vec<Lease> = vec![*lease];
        if let Err(error) = actor.ask(Release { leases }, ASK_LIMIT).await {
            tracing::debug!(node, %error, "the rival's room comes back when its time is up");
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_rival_that_came_to_no_good_end_is_not_taken_for_one_that_had_nothing_to_do() {
        let rival = |task| Rival { task, stop: watch::channel(false).0 };
        rival(tokio::spawn(async {})).finish().await.unwrap();
        let lost = rival(tokio::spawn(async { panic!("a fault of the harness") })).finish().await;
        let lost = lost.unwrap_err().to_string();
        assert!(lost.contains("binding as a rival"), "{lost}");
    }

    #[test]
    fn only_pods_that_name_the_rival_and_have_no_node_wait_for_it() {
        let pod = |scheduler: &str, node: Value, deleted: Value| {
            json!({
                "metadata": { "deletionTimestamp": deleted },
                "spec": { "schedulerName": scheduler, "nodeName": node },
            })
        };
        assert!(waits(&pod(RIVAL, Value::Null, Value::Null)));
        assert!(!waits(&pod("default-scheduler", Value::Null, Value::Null)));
        assert!(!waits(&pod(RIVAL, "n".into(), Value::Null)));
        assert!(!waits(&pod(RIVAL, Value::Null, "2024-01-01T00:00:00Z".into())));
    }
}
