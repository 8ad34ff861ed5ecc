//! What a Pod actor finds when it starts: nothing, or what its predecessor left. No IO.
//!
//! A container that still runs is taken over as it is. One that ended meanwhile has ended. One
//! that the status knows and the machine does not is lost: its exit code is unknown (137), and the
//! restart policy decides, so that a pod that must not run twice does not.

use super::backoff::BackoffScale;
use super::{
    backoff::Backoff,
    life::{Container, Ended, Life, Outcome, Part, Pod, Probed, RestartPolicy},
};
use impresario_host::{ContainerId, ContainerState, Exit, Found};
use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use std::time::{Duration, Instant};

/// The pod of this object, given what was found of it on the machine.
pub fn recover(
    object: &v1::Pod,
    found: &[Found],
    scale: BackoffScale,
    now: (Instant, Timestamp),
) -> Pod {
    let found = if impresario_runtime::mutant!(ContainersRestarted) { &[] } else { found };
    let no_spec = v1::PodSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&no_spec);
    let status = object.status.clone().unwrap_or_default();
    let init = spec.init_containers.iter().flatten().map(|container| {
        let is_sidecar = container.restart_policy.as_deref() == Some("Always");
        (container, if is_sidecar { Part::Sidecar } else { Part::Init })
    });
    let main = spec.containers.iter().map(|container| (container, Part::Main));
    let told = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    let told: Vec<_> = told.collect();
    let containers = init.chain(main).map(|(container, part)| {
        let probed = Probed {
            startup: container.startup_probe.is_some(),
            readiness: container.readiness_probe.is_some(),
            post_start: container
                .lifecycle
                .as_ref()
                .is_some_and(|hooks| hooks.post_start.is_some()),
        };
        let mut recovered = Container::new(&container.name, part, probed);
        let told = told.iter().find(|told| told.name == container.name);
        of_container(&mut recovered, told.copied(), found, &scale, now);
        recovered
    });
    let policy = RestartPolicy::parse(spec.restart_policy.as_deref());
    let mut pod = Pod::new(policy, scale, containers.collect());
    pod.grace = grace(object);
    pod.over = match status.phase.as_deref() {
        Some("Succeeded") => Some(Outcome::Succeeded),
        Some("Failed") => Some(Outcome::Failed),
        _ => None,
    };
    let is_running = |found: &&Found| matches!(found.state, ContainerState::Running { .. });
    if pod.over.is_some() && found.iter().any(|found| is_running(&found)) {
        // Its end was told before it had come: what still runs is stopped.
        pod.ending = Some(super::life::Ending::Failed {
            reason: status.reason.clone().unwrap_or_default(),
            message: status.message.clone().unwrap_or_default(),
        });
    }
    pod.deadline = deadline(object, now.1, now);
    pod
}

/// When the pod has run for too long, by its object as it is now; it may be set, and shortened, while the pod runs.
/// `taken_on` stands in for a start that is not told yet.
pub fn deadline(
    object: &v1::Pod,
    taken_on: Timestamp,
    now: (Instant, Timestamp),
) -> Option<Instant> {
    let seconds = object.spec.as_ref()?.active_deadline_seconds?;
    let limit = Duration::from_secs(u64::try_from(seconds).ok()?);
    let told = object.status.as_ref().and_then(|status| status.start_time.as_ref());
    // What is told is cut to whole seconds: the same moment is not taken for an earlier one.
    let is_now = |start: Timestamp| taken_on.duration_since(start).as_secs() == 0;
    let start = told.map(|start| start.0).filter(|start| !is_now(*start)).unwrap_or(taken_on);
    let ran = Duration::try_from(now.1.duration_since(start)).unwrap_or_default();
    now.0.checked_add(limit.saturating_sub(ran))
}

/// How long the pod's containers have when it is deleted, or would have.
pub fn grace(object: &v1::Pod) -> Duration {
    let deletion = object.metadata.deletion_grace_period_seconds;
    let own = object.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let seconds = deletion.or(own).unwrap_or(30);
    // Even a forced deletion gives a second to close files in.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
}

fn of_container(
    container: &mut Container,
    told: Option<&v1::ContainerStatus>,
    found: &[Found],
    scale: &BackoffScale,
    now: (Instant, Timestamp),
) {
    let mut here: Vec<_> = found.iter().filter(|found| found.container == container.name).collect();
    here.sort_by_key(|found| found.attempt);
    container.restarts = told.map_or(0, |told| u32::try_from(told.restart_count).unwrap_or(0));
    let Some(newest) = here.pop() else {
        lost(container, told, scale, now);
        return;
    };
    let is_told = told
        .and_then(|told| told.container_id.as_deref())
        .is_some_and(|id| id.ends_with(&newest.id.0));
    if !is_told {
        container.restarts = newest.attempt.max(container.restarts);
    }
    container.attempt = newest.attempt + 1;
    container.backoff = Backoff::recovered(scale, container.restarts, now.0);
    container.last = here.pop().and_then(|earlier| match &earlier.state {
        ContainerState::Exited(exit) => {
            Some(Ended { id: Some(earlier.id.clone()), exit: exit.clone() })
        }
        ContainerState::Created | ContainerState::Running { .. } => None,
    });
    container.life = match &newest.state {
        ContainerState::Running { started_at, .. } => {
            let ran = Duration::try_from(now.1.duration_since(*started_at)).unwrap_or_default();
            container.started =
                told.is_some_and(|told| told.started == Some(true)) || !container.probes().startup;
            container.passes = told.is_some_and(|told| told.ready) || !container.probes().readiness;
            Life::Running {
                id: newest.id.clone(),
                started_at: *started_at,
                since: now.0.checked_sub(ran).unwrap_or(now.0),
                stopping: None,
            }
        }
        ContainerState::Exited(_) if impresario_runtime::mutant!(RunAgain) => {
            Life::Waiting { reason: "ContainerCreating".into(), message: String::new() }
        }
        ContainerState::Exited(exit) => {
            container.backoff.ended(scale, Duration::ZERO, now.0);
            Life::Ended(Ended { id: Some(newest.id.clone()), exit: exit.clone() })
        }
        // It was made and never ran.
        ContainerState::Created => {
            Life::Waiting { reason: "ContainerCreating".into(), message: String::new() }
        }
    };
}

fn lost(
    container: &mut Container,
    told: Option<&v1::ContainerStatus>,
    scale: &BackoffScale,
    now: (Instant, Timestamp),
) {
    let Some(told) = told else { return };
    let state = told.state.as_ref();
    let id = told
        .container_id
        .as_deref()
        .and_then(|id| id.split_once("://"))
        .map(|(_, id)| ContainerId(id.to_owned()));
    container.last = told.last_state.as_ref().and_then(|state| ended(state, None));
    let before = state.and_then(|state| ended(state, id.clone()));
    let was_running = state.is_some_and(|state| state.running.is_some());
    let exit = match (before, was_running) {
        (Some(before), _) => before,
        (None, true) => Ended { id, exit: unknown(now.1) },
        (None, false) => match container.last.take() {
            Some(last) => last, // it waits to be started again
            None => return,
        },
    };
    container.attempt = container.restarts + 1;
    container.backoff = Backoff::recovered(scale, container.restarts + 1, now.0);
    container.life = Life::Ended(exit);
}

fn unknown(now: Timestamp) -> Exit {
    Exit {
        code: 137,
        signal: None,
        started_at: None,
        finished_at: now,
        reason: "ContainerStatusUnknown".to_owned(),
        message: "The container could not be located when the node came back".to_owned(),
    }
}

fn ended(state: &v1::ContainerState, id: Option<ContainerId>) -> Option<Ended> {
    let told = state.terminated.as_ref()?;
    let of_told = told.container_id.as_deref().and_then(|id| id.split_once("://"));
    let exit = Exit {
        code: told.exit_code,
        signal: told.signal,
        started_at: told.started_at.as_ref().map(|time| time.0),
        finished_at: told.finished_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        reason: told.reason.clone().unwrap_or_default(),
        message: told.message.clone().unwrap_or_default(),
    };
    Some(Ended { id: of_told.map(|(_, id)| ContainerId(id.to_owned())).or(id), exit })
}

/// What is to be removed of a pod that lives on: all but the newest two lives of each container.
pub fn outdated(found: &[Found]) -> Vec<ContainerId> {
    let newer = |one: &Found| {
        found
            .iter()
            .filter(|other| other.container == one.container && other.attempt > one.attempt)
            .count()
    };
    let is_ended = |one: &&Found| matches!(one.state, ContainerState::Exited(_));
    found.iter().filter(is_ended).filter(|one| newer(one) >= 2).map(|one| one.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::reconcile::{Action, reconcile};
    use impresario_runtime::clock;
    use serde_json::{Value, json};

    fn object(policy: &str, status: Value) -> v1::Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"restartPolicy": policy, "containers": [{"name": "a"}]},
            "status": status
        }))
        .unwrap()
    }

    fn found(attempt: u32, state: ContainerState) -> Found {
        let id = ContainerId(format!("u/a/{attempt}"));
        Found { id, pod_uid: "u".into(), container: "a".into(), attempt, state }
    }

    fn exited(code: i32) -> ContainerState {
        ContainerState::Exited(Exit {
            code,
            reason: "Error".into(),
            ..unknown(Timestamp::UNIX_EPOCH)
        })
    }

    fn running() -> ContainerState {
        ContainerState::Running { started_at: Timestamp::UNIX_EPOCH, pid: 7 }
    }

    fn actions(object: &v1::Pod, found: &[Found]) -> (Pod, Vec<Action>) {
        let now = (clock::now(), Timestamp::UNIX_EPOCH);
        let mut pod = recover(object, found, BackoffScale::default(), now);
        pod.sandbox = crate::pod::life::Sandbox::Ready;
        let actions = reconcile(&pod, now.0);
        (pod, actions)
    }

    #[test]
    fn a_container_that_still_runs_is_taken_over_with_its_count() {
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": 2,
            "containerID": "process://u/a/2", "image": "", "imageID": "", "ready": true, "state": {"running": {}}}]});
        let (pod, actions) =
            actions(&object("Always", status), &[found(2, running()), found(1, exited(1))]);
        assert!(actions.is_empty());
        let a = pod.container("a").unwrap();
        assert_eq!((a.restarts, a.attempt, a.is_ready()), (2, 3, true));
        assert!(a.last.is_some());
    }

    #[test]
    fn the_deadline_is_that_of_the_object_as_it_is_now() {
        let now = (clock::now(), Timestamp::UNIX_EPOCH + Duration::from_secs(100));
        let mut pod = object("Always", json!({"startTime": "1970-01-01T00:01:00Z"}));
        assert_eq!(deadline(&pod, now.1, now), None);
        let mut limit = |seconds| {
            pod.spec.as_mut().unwrap().active_deadline_seconds = Some(seconds);
            deadline(&pod, now.1, now).unwrap() - now.0
        };
        assert_eq!(limit(70), Duration::from_secs(30));
        assert_eq!(limit(10), Duration::ZERO);
        let taken_on = Timestamp::UNIX_EPOCH + Duration::from_millis(60_900);
        let soon = (now.0, taken_on);
        pod.spec.as_mut().unwrap().active_deadline_seconds = Some(1);
        let whole = deadline(&pod, taken_on, soon).unwrap() - now.0;
        assert_eq!(whole, Duration::from_secs(1), "a start is told in whole seconds");
    }

    #[test]
    fn a_start_that_never_made_it_into_the_status_counts() {
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": 0,
            "containerID": "process://u/a/0", "image": "", "imageID": "", "ready": true, "state": {"running": {}}}]});
        let (pod, _) =
            actions(&object("Always", status), &[found(0, exited(1)), found(1, running())]);
        assert_eq!(pod.container("a").map(|a| a.restarts), Some(1));
    }

    #[test]
    fn a_container_that_vanished_is_not_run_twice_where_it_must_not_be() {
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": 0,
            "containerID": "process://u/a/0", "image": "", "imageID": "", "ready": true, "state": {"running": {}}}]});
        let (pod, never) = actions(&object("Never", status.clone()), &[]);
        assert!(never.is_empty());
        assert_eq!(pod.outcome(), Some(Outcome::Failed));
        let (_, always) = actions(&object("Always", status), &[]);
        assert_eq!(always, [Action::Start("a".into())]);
    }

    #[test]
    fn a_pod_that_was_over_stays_over() {
        let (pod, actions) = actions(&object("Never", json!({"phase": "Succeeded"})), &[]);
        assert!(actions.is_empty());
        assert_eq!(pod.outcome(), Some(Outcome::Succeeded));
    }

    #[test]
    fn only_the_newest_two_lives_are_kept() {
        let all =
            [found(0, exited(1)), found(1, exited(1)), found(2, exited(1)), found(3, running())];
        let ids: Vec<_> = outdated(&all).into_iter().map(|id| id.0).collect();
        assert_eq!(ids, ["u/a/0", "u/a/1"]);
    }
}
