//! Waits until the cluster has healed, and tells how it stands then.
//!
//! A pod counts when its status says Ready and its own actor, asked on the node where it is bound,
//! says so too: a status that outlived its pod does not count.

use crate::cluster::Session;
use crate::held::ended;
use crate::workload::{CONTROLLERS, JOB, NAMESPACE, SERVICE};
use impresario_client::protocol::pod::{Describe, PodRole, actor_name};
use impresario_registry_api::{Consistency, Key, ListRequest, Selection};
use impresario_runtime::{ActorPath, NodeName};
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(250);
/// How long a pod's actor has to answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// How a replication controller stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Its name.
    pub name: String,
    /// How many pods it promises.
    pub wanted: i64,
    /// How many pods of it there are that have not ended, and that nobody has asked to end.
    pub present: i64,
    /// How many of these run and are ready.
    pub ready: i64,
    /// What its own status says is ready.
    pub said: i64,
}

impl Replicas {
    /// Neither fewer nor more than promised.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        [self.present, self.ready, self.said].iter().all(|count| *count == self.wanted)
    }
}

/// Who stands behind the service, in the words of pods, Endpoints and slices: `UID at ADDRESS`, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// The pods that it selects and that are ready.
    pub ready: Vec<String>,
    /// The addresses of its Endpoints.
    pub endpoints: Vec<String>,
    /// The ready endpoints of its slices.
    pub slices: Vec<String>,
}

impl Served {
    /// Exactly the ready pods, each of them once.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.ready.is_empty() && self.endpoints == self.ready && self.slices == self.ready
    }

    /// From the ready pods, the Endpoints of the service and all slices of its namespace.
    fn of(ready: &[&Value], endpoints: &Value, slices: &[Value]) -> Self {
        let word = |object: &Value, uid: &str, address: &str| {
            let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or("nobody");
            format!("{} at {}", text(uid), text(address))
        };
        let list = |object: &Value, field: &str| object[field].as_array().cloned();
        let sorted = |mut words: Vec<String>| {
            words.sort();
            words
        };
        let subsets = list(endpoints, "subsets").into_iter().flatten();
        let addresses = subsets.filter_map(|subset| list(&subset, "addresses")).flatten();
        let own = slices
            .iter()
            .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == SERVICE);
        let all = own.filter_map(|slice| list(slice, "endpoints")).flatten();
        let all = all.filter(|endpoint| endpoint["conditions"]["ready"] == true);
        Self {
            ready: sorted(
                ready.iter().map(|pod| word(pod, "/metadata/uid", "/status/podIP")).collect(),
            ),
            endpoints: sorted(addresses.map(|one| word(&one, "/targetRef/uid", "/ip")).collect()),
            slices: sorted(all.map(|one| word(&one, "/targetRef/uid", "/addresses/0")).collect()),
        }
    }
}

/// How the cluster stood when it had been given time to heal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healed {
    /// The replication controllers.
    pub controllers: Vec<Replicas>,
    /// The service of one of them.
    pub service: Served,
    /// How many successes the job counts.
    pub succeeded: i64,
    /// Whether the job says that it is complete.
    pub complete: bool,
    /// How long healing took.
    pub took: Duration,
    /// How long it took until every replication controller was restored; none if that was not seen.
    pub restored: Option<Duration>,
    /// How many successes the job still lacked when healing began: it takes as long as its work does.
    pub job_left: i64,
}

/// Looks until everything is as promised, or the time is up.
pub(crate) async fn await_healed(session: &Session, limit: Duration) -> Healed {
    let began = Instant::now();
    let mut healed = Healed::default();
    let mut left = None;
    let mut restored = None;
    while began.elapsed() < limit {
        if let Some(seen) = look(session).await {
            let took = began.elapsed();
            let is_restored = seen.controllers.iter().all(Replicas::is_restored);
            restored = is_restored.then_some(restored.unwrap_or(took));
            let job_left = *left.get_or_insert(seen.job_left);
            healed = Healed { took, restored, job_left, ..seen };
            if healed.complete && is_restored && healed.service.is_exact() {
                break;
            }
        }
        sleep(LOOK).await;
    }
    healed
}

async fn look(session: &Session) -> Option<Healed> {
    let get = async |resource: &str, name: &str| {
        let key = Key::new(resource, NAMESPACE, name);
        let (entry, _) = session.registry.get(key, Consistency::Linearizable).await.ok()?;
        serde_json::from_slice::<Value>(&entry?.value).ok()
    };
    let job = get("batch/jobs", JOB).await?;
    let complete = has_condition(&job, "Complete");
    let list = async |resource: &str| {
        let list = ListRequest::of(Selection::all(resource).within(NAMESPACE));
        let page = session.registry.list(list).await.ok()?;
        let objects = page.entries.iter().map(|entry| serde_json::from_slice(&entry.value).ok());
        objects.collect::<Option<Vec<Value>>>()
    };
    let mut pods = list("pods").await?;
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null() && !ended(pod));
    let behind: Vec<&Value> = pods
        .iter()
        .filter(|pod| pod["metadata"]["labels"]["app"] == SERVICE && has_condition(pod, "Ready"))
        .collect();
    let endpoints = get("endpoints", SERVICE).await.unwrap_or_default();
    let slices = list("discovery.k8s.io/endpointslices").await?;
    let service = Served::of(&behind, &endpoints, &slices);
    let mut controllers = Vec::new();
    for (name, wanted) in CONTROLLERS {
        let controller = get("replicationcontrollers", name).await?;
        let of_it: Vec<&Value> =
            pods.iter().filter(|pod| pod["metadata"]["labels"]["app"] == name).collect();
        let mut ready = 0;
        for pod in &of_it {
            if has_condition(pod, "Ready") && runs(session, pod).await {
                ready += 1;
            }
        }
        controllers.push(Replicas {
            name: name.to_owned(),
            wanted,
            present: i64::try_from(of_it.len()).unwrap_or(i64::MAX),
            ready,
            said: controller["status"]["readyReplicas"].as_i64().unwrap_or(0),
        });
    }
    let succeeded = job["status"]["succeeded"].as_i64().unwrap_or(0);
    let job_left = job["spec"]["completions"].as_i64().unwrap_or(0) - succeeded;
    Some(Healed { controllers, service, succeeded, complete, job_left, ..Healed::default() })
}

fn has_condition(object: &Value, name: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == name && c["status"] == "True")
}

/// Whether the pod's actor, on the node where the pod is bound, says that it is ready.
async fn runs(session: &Session, pod: &Value) -> bool {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let path = ActorPath::new(
        NodeName::from(text("/spec/nodeName")),
        actor_name(text("/metadata/uid")).as_str(),
    );
    let answer = session.node.actor::<PodRole>(path).ask(Describe, ASK_LIMIT).await;
    answer.is_ok_and(|pod| pod.ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, ip: &str) -> Value {
        json!({"metadata": {"uid": uid}, "status": {"podIP": ip}})
    }

    fn endpoints(of: &[(&str, &str)]) -> Value {
        let addresses: Vec<Value> =
            of.iter().map(|(uid, ip)| json!({"ip": ip, "targetRef": {"uid": uid}})).collect();
        json!({"subsets": [{"addresses": addresses}]})
    }

    fn slice(service: &str, of: &[(&str, &str, bool)]) -> Value {
        let endpoints: Vec<Value> = of
            .iter()
            .map(|(uid, ip, ready)| {
                json!({"addresses": [ip], "targetRef": {"uid": uid}, "conditions": {"ready": ready}})
            })
            .collect();
        json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}}, "endpoints": endpoints,
        })
    }

    #[test]
    fn exactly_the_ready_pods_are_endpoints_of_their_service_in_both_forms() {
        let pods = [pod("a", "127.0.0.1"), pod("b", "127.0.0.2")];
        let ready: Vec<&Value> = pods.iter().collect();
        let (a, b) = (("a", "127.0.0.1"), ("b", "127.0.0.2"));
        let both =
            || vec![slice(SERVICE, &[(b.0, b.1, true)]), slice(SERVICE, &[(a.0, a.1, true)])];
        let judged = |told: &[(&str, &str)], slices: &[Value]| {
            Served::of(&ready, &endpoints(told), slices).is_exact()
        };
        assert!(judged(&[b, a], &both()));
        let mut more = both();
        more.push(slice("kubernetes", &[("x", "127.0.0.9", true)]));
        more.push(slice(SERVICE, &[("c", "127.0.0.3", false)]));
        assert!(judged(&[a, b], &more), "another's, and one that is not ready");

        assert!(!judged(&[a], &both()), "one is missing");
        assert!(!judged(&[a, b, ("c", "127.0.0.3")], &both()), "one that is gone is told still");
        assert!(!judged(&[a, ("b", "127.0.0.7")], &both()), "at an address that it has no more");
        assert!(!judged(&[a, b], &both()[..1]), "the slices lack one");
        more.push(slice(SERVICE, &[(a.0, a.1, true)]));
        assert!(!judged(&[a, b], &more), "one stands in two slices");
        assert!(!Served::default().is_exact(), "where nobody is ready nothing is shown");
    }
}
