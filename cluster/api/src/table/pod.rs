//! The row of a pod, whose STATUS is not a field but a reading of all of its containers.
//!
//! It tells the most useful thing: why an init container holds the pod up, what a container waits
//! for or died of, and `Completed`, `Terminating` or `NodeLost` over what the phase alone says.

use crate::field::{at, flag, has, list, number, text};
use crate::table::{age, name, or_none, since};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The cells of a pod's row.
pub fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.last_restart.as_str() {
        last if summary.restarts > 0 && !last.is_empty() => {
            format!("{} ({} ago)", summary.restarts, since(last, now))
        }
        _ => summary.restarts.to_string(),
    };
    let address = list(pod, "status.podIPs")
        .first()
        .map_or_else(|| text(pod, "status.podIP"), |first| text(first, "ip"));
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        restarts.into(),
        age(pod, now),
        or_none(address),
        or_none(text(pod, "spec.nodeName")),
        or_none(text(pod, "status.nominatedNodeName")),
        readiness_gates(pod),
    ]
}

/// Whether a row is of a pod that is over, so that clients can leave it out.
pub fn row_conditions(pod: &Value) -> Value {
    let reason = match text(pod, "status.phase") {
        "Succeeded" => "Succeeded",
        "Failed" => "Failed",
        _ => return json!([]),
    };
    json!([{
        "type": "Completed",
        "status": "True",
        "reason": reason,
        "message": if reason == "Succeeded" {
            "The pod has completed successfully."
        } else {
            "The pod failed."
        },
    }])
}

/// What a pod's containers say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The word in the STATUS column.
    pub status: String,
    /// Containers that are ready.
    pub ready: usize,
    /// Containers that should be.
    pub total: usize,
    /// How often containers were started again.
    pub restarts: i64,
    /// When the last of these ended, as it is written in the status; empty when it is not known.
    pub last_restart: String,
}

#[derive(Default)]
struct Restarts {
    count: i64,
    last: String,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += number(status, "restartCount").unwrap_or(0);
        let ended = text(status, "lastState.terminated.finishedAt");
        let time = |text: &str| text.parse::<Timestamp>().ok();
        if time(ended) > time(&self.last) {
            ended.clone_into(&mut self.last);
        }
    }
}

fn terminated_reason(terminated: &Value) -> String {
    let reason = text(terminated, "reason");
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match number(terminated, "signal").unwrap_or(0) {
        0 => format!("ExitCode:{}", number(terminated, "exitCode").unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}

fn condition(pod: &Value, kind: &str) -> bool {
    list(pod, "status.conditions")
        .iter()
        .any(|condition| text(condition, "type") == kind && text(condition, "status") == "True")
}

/// Reads a pod's status.
pub fn summarize(pod: &Value) -> Summary {
    let phase = text(pod, "status.phase");
    let pod_reason = text(pod, "status.reason");
    let mut status = if pod_reason.is_empty() { phase } else { pod_reason }.to_owned();
    let gated = list(pod, "status.conditions").iter().any(|condition| {
        text(condition, "type") == "PodScheduled" && text(condition, "reason") == "SchedulingGated"
    });
    if gated {
        "SchedulingGated".clone_into(&mut status);
    }

    let init = list(pod, "spec.initContainers");
    // An init container that restarts always is a sidecar: it counts as one of the pod's own.
    let sidecar = |name: &str| {
        init.iter().any(|c| text(c, "name") == name && text(c, "restartPolicy") == "Always")
    };
    let total = list(pod, "spec.containers").len()
        + init.iter().filter(|c| text(c, "restartPolicy") == "Always").count();
    let mut ready = 0;
    let (mut restarts, mut sidecar_restarts) = (Restarts::default(), Restarts::default());
    let mut initializing = false;
    for (index, container) in list(pod, "status.initContainerStatuses").iter().enumerate() {
        let is_sidecar = sidecar(text(container, "name"));
        restarts.add(container);
        if is_sidecar {
            sidecar_restarts.add(container);
        }
        let terminated = at(container, "state.terminated");
        let waiting = text(container, "state.waiting.reason");
        if !terminated.is_null() && number(terminated, "exitCode").unwrap_or(0) == 0 {
            continue;
        }
        if is_sidecar && flag(container, "started") {
            ready += usize::from(flag(container, "ready"));
            continue;
        }
        status = if !terminated.is_null() {
            format!("Init:{}", terminated_reason(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", init.len())
        };
        initializing = true;
        break;
    }

    if !initializing || condition(pod, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        for container in list(pod, "status.containerStatuses").iter().rev() {
            restarts.add(container);
            let waiting = text(container, "state.waiting.reason");
            let terminated = at(container, "state.terminated");
            if !waiting.is_empty() {
                waiting.clone_into(&mut status);
            } else if !terminated.is_null() {
                status = terminated_reason(terminated);
            } else if flag(container, "ready") && has(container, "state.running") {
                running = true;
                ready += 1;
            }
        }
        if status == "Completed" && running {
            let word = if condition(pod, "Ready") { "Running" } else { "NotReady" };
            word.clone_into(&mut status);
        }
    }

    if has(pod, "metadata.deletionTimestamp") {
        if pod_reason == "NodeLost" {
            "Unknown".clone_into(&mut status);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut status);
        }
    }
    Summary { status, ready, total, restarts: restarts.count, last_restart: restarts.last }
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = list(pod, "spec.readinessGates");
    if gates.is_empty() {
        return or_none("");
    }
    let met = gates.iter().filter(|gate| condition(pod, text(gate, "conditionType"))).count();
    format!("{met}/{}", gates.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(status: &Value, deleted: bool) -> String {
        let mut pod = json!({
            "metadata": {},
            "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]},
            "status": status,
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        summarize(&pod).status
    }

    #[test]
    fn the_status_tells_what_holds_the_pod_up_or_ended_it() {
        let container = |state: Value| json!({"phase": "Running", "containerStatuses": [{"name": "a", "state": state}]});
        let init = |state: Value| json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": state}]});
        let rows = [
            (
                container(json!({"waiting": {"reason": "CrashLoopBackOff"}})),
                false,
                "CrashLoopBackOff",
            ),
            (container(json!({"waiting": {"reason": "ContainerCreating"}})), true, "Terminating"),
            (container(json!({"terminated": {"exitCode": 3}})), false, "ExitCode:3"),
            (container(json!({"terminated": {"exitCode": 137, "signal": 9}})), false, "Signal:9"),
            (
                init(json!({"waiting": {"reason": "ImagePullBackOff"}})),
                false,
                "Init:ImagePullBackOff",
            ),
            (init(json!({"terminated": {"exitCode": 2}})), false, "Init:ExitCode:2"),
            (init(json!({"terminated": {"exitCode": 2, "signal": 6}})), false, "Init:Signal:6"),
            (init(json!({"running": {}})), false, "Init:0/1"),
            (json!({"phase": "Failed", "reason": "Evicted"}), false, "Evicted"),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
                false,
                "SchedulingGated",
            ),
        ];
        for (status, deleted, expected) in rows {
            assert_eq!(status_of(&status, deleted), expected, "{status}");
        }
    }

    #[test]
    fn restarts_say_how_long_ago_the_last_one_was() {
        let pod = json!({
            "metadata": {"name": "x"},
            "spec": {"containers": [{"name": "a"}]},
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}},
            }]},
        });
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        assert_eq!(cells(&pod, now)[3], "2 (5m ago)");
    }
}
