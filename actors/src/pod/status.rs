//! `status` of a pod object, from what its actor knows. No IO; `now` is a parameter.
//!
//! What others own is kept: `PodScheduled` is the scheduler's, readiness gates are their
//! controllers'. A condition's transition time changes only when its status does, so that writing
//! the same state twice gives the same bytes and needs no write.

use super::life::{Container, Ended, Ending, Life, Outcome, Part, Pod, Sandbox};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, PodCondition, PodIP, PodSpec, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use std::{net::IpAddr, time::Instant};

/// What a status says besides the containers.
pub struct Facts<'a> {
    /// The pod's name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// Its generation, which the status has seen.
    pub generation: Option<i64>,
    /// What it should be.
    pub spec: &'a PodSpec,
    /// The scheme of its container ids.
    pub driver: &'a str,
    /// Its own address.
    pub address: Option<IpAddr>,
    /// Its node's address.
    pub host: IpAddr,
    /// When this node took it on.
    pub start_time: Timestamp,
}

/// The status to be written, given the one that is there.
pub fn status(
    pod: &Pod,
    facts: &Facts<'_>,
    before: &PodStatus,
    now: (Instant, Timestamp),
) -> PodStatus {
    let outcome = pod.outcome();
    let (reason, message) = match &pod.ending {
        Some(Ending::Failed { reason, message }) => (Some(reason.clone()), Some(message.clone())),
        Some(Ending::Deleted) | None => (before.reason.clone(), before.message.clone()),
    };
    let statuses = |init: bool| {
        let of_kind = pod.containers.iter().filter(|c| (c.part != Part::Main) == init);
        let all: Vec<_> = of_kind.map(|c| container_status(pod, c, facts, now.0)).collect();
        (!all.is_empty()).then_some(all)
    };
    PodStatus {
        phase: Some(phase(pod, outcome).to_owned()),
        conditions: Some(conditions(pod, outcome, facts, before, now.1)),
        init_container_statuses: statuses(true),
        container_statuses: statuses(false),
        host_ip: Some(facts.host.to_string()),
        host_ips: Some(vec![HostIP { ip: facts.host.to_string() }]),
        pod_ip: facts.address.map(|address| address.to_string()),
        pod_ips: facts.address.map(|address| vec![PodIP { ip: address.to_string() }]),
        qos_class: Some(
            before.qos_class.clone().unwrap_or_else(|| qos_class(facts.spec).to_owned()),
        ),
        start_time: Some(before.start_time.clone().unwrap_or(Time(facts.start_time))),
        observed_generation: facts.generation,
        reason,
        message,
        nominated_node_name: None,
        ..before.clone()
    }
}

/// `Pending`, `Running`, `Succeeded` or `Failed`.
pub fn phase(pod: &Pod, outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Succeeded) => return "Succeeded",
        Some(Outcome::Failed) => return "Failed",
        None => {}
    }
    let mut main = pod.containers.iter().filter(|container| container.part == Part::Main);
    if pod.is_initialized() && main.all(Container::ever_started) { "Running" } else { "Pending" }
}

fn container_status(
    pod: &Pod,
    container: &Container,
    facts: &Facts<'_>,
    now: Instant,
) -> ContainerStatus {
    let (state, last) = states(pod, container, facts, now);
    let id = match &container.life {
        Life::Running { id, .. } => Some(id),
        Life::Ended(ended) => ended.id.as_ref(),
        Life::Waiting { .. } | Life::Starting => {
            container.last.as_ref().and_then(|last| last.id.as_ref())
        }
    };
    let specs = facts.spec.containers.iter().chain(facts.spec.init_containers.iter().flatten());
    let image =
        specs.filter(|spec| spec.name == container.name).find_map(|spec| spec.image.clone());
    let is_running = container.is_running();
    ContainerStatus {
        name: container.name.clone(),
        image_id: String::new(),
        image: image.unwrap_or_default(),
        container_id: id.map(|id| format!("{}://{id}", facts.driver)),
        ready: container.is_ready(),
        started: Some(is_running && container.started),
        restart_count: i32::try_from(container.restarts).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: last,
        ..ContainerStatus::default()
    }
}

fn states(
    pod: &Pod,
    container: &Container,
    facts: &Facts<'_>,
    now: Instant,
) -> (ContainerState, Option<ContainerState>) {
    let last = container.last.as_ref().map(|ended| terminated(ended, facts));
    // As the kubelet has it: with init containers the pod is being initialized until a container runs.
    let has_init = pod.containers.iter().any(|container| container.part != Part::Main);
    let creating = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let state = match &container.life {
        Life::Waiting { .. } if container.part == Part::Main && !pod.is_initialized() => {
            waiting("PodInitializing", "")
        }
        Life::Waiting { reason, message } if reason == "ContainerCreating" => {
            waiting(creating, message)
        }
        Life::Waiting { reason, message } if container.backoff.blocked_until(now).is_some() => {
            if reason == "ErrImagePull" {
                waiting("ImagePullBackOff", &format!("Back-off pulling image: {message}"))
            } else {
                waiting(reason, message)
            }
        }
        Life::Waiting { reason, message } => waiting(reason, message),
        Life::Starting => waiting(creating, ""),
        Life::Running { started_at, .. } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*started_at)) }),
            ..ContainerState::default()
        },
        Life::Ended(ended) => {
            let again = pod.ending.is_none() && pod.restarts(container, ended.exit.code);
            if again && container.backoff.blocked_until(now).is_some() {
                let wait = container.backoff.current(&pod.scale);
                let message = format!(
                    "back-off {wait:?} restarting failed container={} pod={}_{}({})",
                    container.name, facts.name, facts.namespace, facts.uid
                );
                return (waiting("CrashLoopBackOff", &message), Some(terminated(ended, facts)));
            }
            terminated(ended, facts)
        }
    };
    (state, last)
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ContainerState::default()
    }
}

fn terminated(ended: &Ended, facts: &Facts<'_>) -> ContainerState {
    let exit = &ended.exit;
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: ended.id.as_ref().map(|id| format!("{}://{id}", facts.driver)),
            exit_code: exit.code,
            // As the kubelet has it: a signal shows in the exit code alone.
            signal: None,
            reason: Some(exit.reason.clone()),
            message: (!exit.message.is_empty()).then(|| exit.message.clone()),
            started_at: exit.started_at.map(Time),
            finished_at: Some(Time(exit.finished_at)),
        }),
        ..ContainerState::default()
    }
}

/// The conditions that the node owns, merged with those of others.
fn conditions(
    pod: &Pod,
    outcome: Option<Outcome>,
    facts: &Facts<'_>,
    before: &PodStatus,
    now: Timestamp,
) -> Vec<PodCondition> {
    let uninitialized = pod.containers.iter().filter(|c| match c.part {
        Part::Init => !c.is_ready(),
        Part::Sidecar => !c.ever_started(),
        Part::Main => false,
    });
    let unready: Vec<_> = pod
        .containers
        .iter()
        .filter(|c| c.part != Part::Init && !c.is_ready())
        .map(|c| &*c.name)
        .collect();
    let old = before.conditions.as_deref().unwrap_or_default();
    let gates = facts.spec.readiness_gates.iter().flatten();
    let closed: Vec<_> = gates
        .filter(|gate| !old.iter().any(|c| c.type_ == gate.condition_type && c.status == "True"))
        .map(|gate| gate.condition_type.as_str())
        .collect();

    let fine = || (true, None, None);
    let is_sandboxed = pod.sandbox == Sandbox::Ready && facts.address.is_some();
    let initialized = if outcome == Some(Outcome::Succeeded) {
        (true, Some("PodCompleted"), None)
    } else if pod.is_initialized() {
        fine()
    } else {
        let names: Vec<_> = uninitialized.map(|c| &*c.name).collect();
        let message = format!("containers with incomplete status: [{}]", names.join(" "));
        (false, Some("ContainersNotInitialized"), Some(message))
    };
    let containers_ready = match outcome {
        Some(Outcome::Succeeded) => (false, Some("PodCompleted"), None),
        Some(Outcome::Failed) => (false, Some("PodFailed"), None),
        None if unready.is_empty() => fine(),
        None => {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            (false, Some("ContainersNotReady"), Some(message))
        }
    };
    let ready = if containers_ready.0 && !closed.is_empty() {
        let message =
            format!("the status of pod readiness gate is not \"True\": {}", closed.join(", "));
        (false, Some("ReadinessGatesNotReady"), Some(message))
    } else {
        containers_ready.clone()
    };
    let ours = [
        ("PodReadyToStartContainers", (is_sandboxed, None, None)),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
    ];
    let mut all: Vec<_> = ours
        .into_iter()
        .map(|(type_, (holds, reason, message))| {
            let status = if holds { "True" } else { "False" };
            let earlier = old.iter().find(|condition| condition.type_ == type_);
            let since =
                earlier.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
            PodCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: reason.map(str::to_owned),
                message,
                last_transition_time: Some(since.unwrap_or(Time(now))),
                observed_generation: facts.generation,
                ..PodCondition::default()
            }
        })
        .collect();
    let others = old.iter().filter(|condition| !ours_by_name(&condition.type_));
    all.extend(others.cloned());
    // A pod that names its node itself was never seen by a scheduler.
    if !all.iter().any(|condition| condition.type_ == "PodScheduled") {
        all.push(PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(Time(now)),
            observed_generation: facts.generation,
            ..PodCondition::default()
        });
    }
    for condition in &mut all {
        // A pod that a scheduler could not place, and that was bound by hand.
        if condition.type_ == "PodScheduled" && condition.status != "True" {
            "True".clone_into(&mut condition.status);
            (condition.reason, condition.message) = (None, None);
            condition.last_transition_time = Some(Time(now));
        }
    }
    all
}

fn ours_by_name(type_: &str) -> bool {
    matches!(type_, "PodReadyToStartContainers" | "Initialized" | "Ready" | "ContainersReady")
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by CPU and memory alone.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let amounts = |limits: bool, name: &'static str| {
        all().map(move |container| {
            let resources = container.resources.as_ref();
            let map = resources
                .and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
            map.and_then(|map| map.get(name))
                .map(|quantity| quantity.0.as_str())
                .filter(|q| *q != "0")
        })
    };
    let kinds = ["cpu", "memory"];
    let asks_nothing = kinds
        .iter()
        .all(|kind| amounts(true, kind).chain(amounts(false, kind)).all(|amount| amount.is_none()));
    let asks_exactly = kinds.iter().all(|kind| {
        amounts(true, kind)
            .zip(amounts(false, kind))
            .all(|(limit, request)| limit.is_some() && (request.is_none() || request == limit))
    });
    match (asks_nothing, asks_exactly) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{
        backoff::BackoffScale,
        life::{Probed, RestartPolicy},
    };
    use impresario_host::{ContainerId, Exit};
    use impresario_runtime::clock;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn spec() -> PodSpec {
        serde_json::from_value(json!({"containers": [{"name": "a", "image": "img:1"}]})).unwrap()
    }

    fn pod(policy: RestartPolicy) -> Pod {
        let main = Container::new("a", Part::Main, Probed::default());
        let mut pod = Pod::new(policy, BackoffScale::default(), vec![main]);
        pod.sandbox = Sandbox::Ready;
        pod
    }

    fn exit(code: i32) -> Exit {
        Exit {
            code,
            signal: None,
            started_at: Some(Timestamp::UNIX_EPOCH),
            finished_at: Timestamp::UNIX_EPOCH,
            reason: Exit::reason_for(code, false).to_owned(),
            message: String::new(),
        }
    }

    fn written(pod: &Pod, before: &PodStatus, now: (Instant, Timestamp)) -> (PodStatus, Value) {
        let spec = spec();
        let facts = Facts {
            name: "p",
            namespace: "ns",
            uid: "u",
            generation: Some(1),
            spec: &spec,
            driver: "process",
            address: Some(IpAddr::from([127, 1, 0, 2])),
            host: IpAddr::from([127, 0, 0, 1]),
            start_time: Timestamp::UNIX_EPOCH,
        };
        let status = status(pod, &facts, before, now);
        let value = serde_json::to_value(&status).unwrap();
        (status, value)
    }

    fn condition<'a>(status: &'a PodStatus, type_: &str) -> &'a PodCondition {
        status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == type_).unwrap()
    }

    #[test]
    fn a_pod_goes_from_pending_over_running_to_succeeded() {
        let now = (clock::now(), Timestamp::UNIX_EPOCH);
        let mut pod = pod(RestartPolicy::Never);
        let (first, value) = written(&pod, &PodStatus::default(), now);
        assert_eq!(value["phase"], "Pending");
        assert_eq!(
            value["containerStatuses"][0]["state"]["waiting"]["reason"],
            "ContainerCreating"
        );
        assert_eq!(condition(&first, "Ready").reason.as_deref(), Some("ContainersNotReady"));

        pod.starting("a");
        pod.started("a", ContainerId("a-0".into()), Timestamp::UNIX_EPOCH, now.0);
        let later = (now.0, Timestamp::UNIX_EPOCH + Duration::from_secs(5));
        let (second, value) = written(&pod, &first, later);
        assert_eq!(value["phase"], "Running");
        assert_eq!(value["containerStatuses"][0]["containerID"], "process://a-0");
        assert_eq!(condition(&second, "Ready").status, "True");
        assert_eq!(condition(&second, "Ready").last_transition_time, Some(Time(later.1)));
        assert_eq!(condition(&second, "Initialized").last_transition_time, Some(Time(now.1)));

        pod.ended("a", Some(ContainerId("a-0".into())), exit(0), now.0);
        let (third, value) = written(&pod, &second, later);
        assert_eq!(value["phase"], "Succeeded");
        assert_eq!(value["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
        assert_eq!(condition(&third, "Ready").reason.as_deref(), Some("PodCompleted"));
    }

    #[test]
    fn all_that_wait_beside_init_containers_say_that_the_pod_is_being_initialized() {
        let now = (clock::now(), Timestamp::UNIX_EPOCH);
        let parts = [("i1", Part::Init), ("i2", Part::Init), ("a", Part::Main)];
        let all = parts.map(|(name, part)| Container::new(name, part, Probed::default()));
        let mut pod = Pod::new(RestartPolicy::Never, BackoffScale::default(), all.into());
        pod.sandbox = Sandbox::Ready;
        let reasons = |pod: &Pod| -> Vec<Value> {
            let (_, value) = written(pod, &PodStatus::default(), now);
            let lists = ["initContainerStatuses", "containerStatuses"];
            let all = lists.iter().flat_map(|list| value[list].as_array().unwrap().clone());
            all.map(|one| one["state"]["waiting"]["reason"].clone()).collect()
        };
        assert_eq!(reasons(&pod), ["PodInitializing"; 3]);
        pod.starting("i1");
        assert_eq!(reasons(&pod), ["PodInitializing"; 3]);
        for name in ["i1", "i2"] {
            pod.started(name, ContainerId(name.into()), Timestamp::UNIX_EPOCH, now.0);
            pod.ended(name, None, exit(0), now.0);
        }
        pod.starting("a");
        assert_eq!(reasons(&pod)[2], "PodInitializing");
    }

    #[test]
    fn a_container_that_keeps_crashing_shows_its_backoff_and_its_last_state() {
        let now = (clock::now(), Timestamp::UNIX_EPOCH);
        let mut pod = pod(RestartPolicy::Always);
        for attempt in 0..2 {
            pod.starting("a");
            pod.started("a", ContainerId(format!("a-{attempt}")), Timestamp::UNIX_EPOCH, now.0);
            pod.ended("a", Some(ContainerId(format!("a-{attempt}"))), exit(7), now.0);
        }
        let (_, value) = written(&pod, &PodStatus::default(), now);
        let container = &value["containerStatuses"][0];
        assert_eq!(value["phase"], "Running");
        assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(
            container["state"]["waiting"]["message"],
            "back-off 10s restarting failed container=a pod=p_ns(u)"
        );
        assert_eq!(container["lastState"]["terminated"]["exitCode"], 7);
        assert_eq!(container["restartCount"], 1);
    }

    #[test]
    fn the_same_state_written_twice_is_the_same_status() {
        let now = (clock::now(), Timestamp::UNIX_EPOCH);
        let pod = pod(RestartPolicy::Always);
        let (first, _) = written(&pod, &PodStatus::default(), now);
        let later = (now.0, Timestamp::UNIX_EPOCH + Duration::from_mins(1));
        assert_eq!(written(&pod, &first, later).0, first);
    }

    #[test]
    fn a_condition_of_another_owner_is_kept() {
        let theirs: PodStatus = serde_json::from_value(json!({"conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"},
            {"type": "example.com/gate", "status": "False"}
        ]}))
        .unwrap();
        let (status, _) =
            written(&pod(RestartPolicy::Always), &theirs, (clock::now(), Timestamp::UNIX_EPOCH));
        assert_eq!(condition(&status, "PodScheduled"), &theirs.conditions.as_ref().unwrap()[0]);
        assert_eq!(condition(&status, "example.com/gate").status, "False");
    }

    #[test]
    fn the_quality_of_service_follows_requests_and_limits() {
        let table = [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
                "Burstable",
            ),
        ];
        for (resources, expected) in table {
            let spec = json!({"containers": [{"name": "a", "resources": resources}]});
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(qos_class(&spec), expected);
        }
    }
}
