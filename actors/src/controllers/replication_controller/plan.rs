//! Keeps as many pods alive as a `ReplicationController` object asks for.
//!
//! [`reconcile`] decides without IO: it adopts orphans that the selector selects, releases owned
//! pods that it no longer selects, then creates or deletes the difference, and reports. Once its
//! actions are applied, it has no more to say. (API reference, ReplicationController v1.)

use super::super::pod_view::{PodView, loss, selects};
use super::failures::failures;
use k8s_openapi::api::core::v1::{
    Pod, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// The most pods that one look creates: a larger controller fills up in steps, so that one
/// mistake in a template is seen before it is repeated a thousand times.
pub const BURST: usize = 500;

/// The annotation by which a pod goes before or after its equals: an integer, the lowest goes first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What the controller wants done. Names are of pods in the controller's namespace.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make this pod ours: it matches and nobody owns it.
    Adopt {
        /// The pod's name.
        pod: String,
        /// The uid that was seen; another pod of that name is not meant.
        uid: String,
    },
    /// Take our owner reference off a pod whose labels no longer match.
    Release {
        /// The pod's name.
        pod: String,
        /// The uid that was seen.
        uid: String,
    },
    /// Create this many pods from the template.
    Create(usize),
    /// Create none before: too many failed of late. Look again then.
    Wait(Timestamp),
    /// Delete a surplus pod, or one that failed long ago.
    Delete {
        /// The pod's name.
        pod: String,
        /// The uid that was seen.
        uid: String,
    },
    /// Write this status.
    Report(ReplicationControllerStatus),
}

/// What must happen so that exactly `spec.replicas` pods live. `pods` are those of the
/// controller's namespace, of which only those matter that [`concerns`] picks. Surplus goes unbound
/// first, then unready, then by `pod-deletion-cost`, then from the fullest node, then the youngest.
#[must_use]
pub fn reconcile(
    controller: &ReplicationController,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> Vec<Action> {
    let uid = controller.metadata.uid.as_deref().unwrap_or_default();
    let Some(spec) = &controller.spec else { return Vec::new() };
    let deleting = controller.metadata.deletion_timestamp.is_some();
    let empty = std::collections::BTreeMap::new();
    let selector = spec.selector.as_ref().unwrap_or(&empty);
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);

    let mut actions = Vec::new();
    let mut alive: Vec<&Pod> = Vec::new();
    let mut failed: Vec<&Pod> = Vec::new();
    for pod in pods {
        let ours = pod.controller().is_some_and(|owner| owner.uid == uid);
        let selected = selects(selector, pod.labels());
        let counts = !pod.terminating() && !pod.finished();
        if ours && !selected && !pod.terminating() {
            actions.push(Action::Release { pod: pod.name().into(), uid: pod.uid().into() });
        } else if ours && selected && counts {
            alive.push(pod);
        } else if ours && !pod.terminating() {
            failed.push(pod);
        } else if selected && counts && pod.controller().is_none() && !deleting {
            actions.push(Action::Adopt { pod: pod.name().into(), uid: pod.uid().into() });
            alive.push(pod);
        }
    }
    if deleting {
        return actions; // what it owns is the garbage collector's now
    }

    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for node in alive.iter().filter_map(|pod| node(pod)) {
        *on_node.entry(node).or_default() += 1;
    }
    alive.sort_by_cached_key(|pod| {
        let beside = node(pod).and_then(|node| on_node.get(node)).copied().unwrap_or(0);
        loss(pod, (deletion_cost(pod), Reverse(beside)))
    });
    let surplus = alive.len().saturating_sub(wanted);
    let missing = wanted.saturating_sub(alive.len()).min(BURST);
    let failures = failures(failed, wanted, now);
    match failures.wait_until.filter(|until| *until > now) {
        Some(until) if missing > 0 => actions.push(Action::Wait(until)),
        None if missing > 0 => actions.push(Action::Create(missing)),
        _ => {}
    }
    for pod in alive[..surplus].iter().chain(failures.surplus.iter().take(BURST)) {
        actions.push(Action::Delete { pod: pod.name().into(), uid: pod.uid().into() });
    }
    let status = status(controller, &alive, now);
    if controller.status.as_ref() != Some(&status) {
        actions.push(Action::Report(status));
    }
    actions
}

/// Whether a pod of the controller's namespace can have a part in what it decides.
#[must_use]
pub fn concerns(controller: &ReplicationController, pod: &Pod) -> bool {
    match pod.controller() {
        Some(owner) => Some(owner.uid.as_str()) == controller.metadata.uid.as_deref(),
        None => {
            let selector = controller.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|selector| selects(selector, pod.labels()))
        }
    }
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

/// What its user says the loss of a pod would cost, beside its equals; 0 where nobody says.
fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod.metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// Why a controller has not the pods that it asks for, as the reason of its condition.
pub const FAILED_CREATE: &str = "FailedCreate";
/// Why it has more than it asks for.
pub const FAILED_DELETE: &str = "FailedDelete";
/// Why it has fewer for now: those that it had failed as soon as they were there.
const PODS_FAIL: &str = "PodsFail";
/// A wait is told that goes on for so long.
const TOLD: SignedDuration = SignedDuration::from_secs(10);
/// The type of that condition (API reference, ReplicationControllerStatus v1).
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What is said of a controller that creates no pods before `until`, if that is long: a reason and a message,
/// for [`conditions`].
#[must_use]
pub fn waiting(until: Timestamp, now: Timestamp) -> Option<(&'static str, String)> {
    let message = "pods fail as soon as they are there: each time it takes longer, up to five minutes, until \
        they are replaced; look at those that failed";
    (until.duration_since(now) >= TOLD).then(|| (PODS_FAIL, message.to_owned()))
}

/// The conditions of a controller whose pods could not all be created or deleted for this reason, with the
/// error. One that says so already stays as it is: each attempt may fail in other words.
#[must_use]
pub fn conditions(
    was: Option<&Vec<ReplicationControllerCondition>>,
    failed: Option<(&str, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicationControllerCondition>> {
    let (said, mut conditions): (Vec<_>, Vec<_>) =
        was.into_iter().flatten().cloned().partition(|said| said.type_ == REPLICA_FAILURE);
    if let Some((reason, message)) = failed {
        let same = said.into_iter().find(|said| said.reason.as_deref() == Some(reason));
        conditions.push(same.unwrap_or_else(|| ReplicationControllerCondition {
            type_: REPLICA_FAILURE.into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(Time(
                Timestamp::from_second(now.as_second()).unwrap_or(now),
            )),
        }));
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// The status of what was seen. `replicas` is what lives now, before the actions of this look.
fn status(
    controller: &ReplicationController,
    alive: &[&Pod],
    now: Timestamp,
) -> ReplicationControllerStatus {
    let spec = controller.spec.as_ref();
    let template_labels = spec
        .and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.clone())
        .unwrap_or_default();
    let patience = i64::from(spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0));
    let count = |holds: &dyn Fn(&Pod) -> bool| {
        i32::try_from(alive.iter().filter(|pod| holds(pod)).count()).unwrap_or(i32::MAX)
    };
    let some = |n: i32| (n > 0).then_some(n);
    ReplicationControllerStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: some(count(&|pod| {
            template_labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
        })),
        ready_replicas: some(count(&|pod| pod.ready())),
        available_replicas: some(count(&|pod| pod.ready() && ready_for(pod, now) >= patience)),
        observed_generation: controller.metadata.generation,
        conditions: controller.status.as_ref().and_then(|status| status.conditions.clone()),
    }
}

/// Seconds since the pod became ready; 0 where nobody wrote down when.
fn ready_for(pod: &Pod, now: Timestamp) -> i64 {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready")
        .and_then(|condition| condition.last_transition_time.as_ref())
        .map_or(0, |since| now.as_second() - since.0.as_second())
}

#[cfg(test)]
mod tests {
    use super::super::super::table::{cells, pod};
    use super::*;
    use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationControllerSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn controller(replicas: i32, ready: i32, seen: i32) -> ReplicationController {
        let labels: std::collections::BTreeMap<_, _> = [("app".into(), "web".into())].into();
        let some = |n: i32| (n > 0).then_some(n);
        ReplicationController {
            metadata: ObjectMeta {
                name: Some("web".into()),
                uid: Some("rc".into()),
                generation: Some(1),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicationControllerSpec {
                replicas: Some(replicas),
                selector: Some(labels.clone()),
                template: Some(PodTemplateSpec {
                    metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                    spec: None,
                }),
                ..ReplicationControllerSpec::default()
            }),
            status: Some(ReplicationControllerStatus {
                replicas: seen,
                fully_labeled_replicas: some(seen),
                ready_replicas: some(ready),
                available_replicas: some(ready),
                observed_generation: Some(1),
                conditions: None,
            }),
        }
    }

    fn in_words(actions: &[Action]) -> String {
        let word = |action: &Action| match action {
            Action::Adopt { pod, .. } => format!("adopt {pod}"),
            Action::Release { pod, .. } => format!("release {pod}"),
            Action::Create(n) => format!("create {n}"),
            Action::Wait(until) => format!("wait {}", until.as_second()),
            Action::Delete { pod, .. } => format!("delete {pod}"),
            Action::Report(status) => {
                format!("report {}/{}", status.ready_replicas.unwrap_or(0), status.replicas)
            }
        };
        actions.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn the_surplus_pod_that_loses_least_work_is_deleted_first() {
        let table = "
            replicas | ready/seen | pods, oldest first          | actions
            2        | 2/2        | a:ready b:ready             |
            3        | 2/2        | a:ready b:ready             | create 1
            900      | 0/0        |                             | create 500
            1        | 1/2        | a:ready b:unbound           | delete b
            1        | 1/2        | a:bound b:ready             | delete a
            1        | 2/2        | a:ready b:ready             | delete b
            1        | 1/1        | a:ready b:ready,terminating |
            1        | 1/1        | a:ready b:failed            |
            0        | 0/1        | a:bound                     | delete a
            1        | 2/2        | a:ready,cost=-5 b:ready     | delete a
            1        | 2/2        | a:ready,cost=7 b:ready,cost=8 | delete a
            1        | 1/2        | a:ready,cost=-5 b:bound     | delete b
            1        | 2/2        | a:ready,cost=cheap b:ready  | delete b
            2        | 3/3        | a:ready,node=2 b:ready,node=1 c:ready,node=1 | delete c
            1        | 2/2        | a:ready,node=1 b:ready,node=2 | delete b
            1        | 0/0        | a:ready,orphan              | adopt a, report 1/1
            1        | 0/0        | a:ready,orphan,other        | create 1
            1        | 1/1        | a:ready,other b:ready       | release a
            1        | 1/1        | a:ready b:ready,foreign     |
            0        | 3/3        |                             | report 0/0";
        for row in table.lines().skip(2) {
            let [replicas, seen, pods, expected] = cells(row);
            let (ready, seen) = seen.split_once('/').unwrap();
            let controller = controller(
                replicas.parse().unwrap(),
                ready.parse().unwrap(),
                seen.parse().unwrap(),
            );
            let pods: Vec<_> = pods
                .split_whitespace()
                .enumerate()
                .map(|(age, words)| Arc::new(pod(words, age, "rc", "web")))
                .collect();
            let actions = reconcile(&controller, &pods, Timestamp::UNIX_EPOCH);
            assert_eq!(in_words(&actions), expected, "in row {row}");
        }
    }

    #[test]
    fn why_pods_cannot_be_created_is_said_once_and_until_they_can() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let other = ReplicationControllerCondition {
            type_: "Other".into(),
            status: "True".into(),
            ..ReplicationControllerCondition::default()
        };
        let before = Some(vec![other]);
        let failing = |message: &str| Some((FAILED_CREATE, message.to_owned()));
        let first = conditions(before.as_ref(), failing("web-1 is refused"), at(1));
        let said = &first.as_ref().unwrap()[1];
        assert_eq!(
            (said.type_.as_str(), said.reason.as_deref()),
            ("ReplicaFailure", Some("FailedCreate"))
        );
        assert_eq!(conditions(first.as_ref(), failing("web-2 is refused"), at(2)), first);
        assert_eq!(conditions(first.as_ref(), None, at(3)), before);
        // Nor has one all pods that waits because they fail, once that takes longer than a moment.
        assert_eq!(waiting(at(4), at(3)), None);
        let waits = conditions(before.as_ref(), waiting(at(40), at(3)), at(3));
        assert_eq!(waits.as_ref().unwrap()[1].reason.as_deref(), Some(PODS_FAIL));
        assert_eq!(conditions(waits.as_ref(), waiting(at(90), at(45)), at(45)), waits);
        assert_eq!(conditions(None, None, at(3)), None);
    }

    #[test]
    fn a_controller_that_is_being_deleted_creates_and_adopts_nothing() {
        let mut controller = controller(3, 0, 0);
        controller.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        let orphan = Arc::new(pod("a:ready,orphan", 0, "rc", "web"));
        assert!(reconcile(&controller, &[orphan], Timestamp::UNIX_EPOCH).is_empty());
    }
}
