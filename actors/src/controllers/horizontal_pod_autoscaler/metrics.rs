//! What each metric of an autoscaler says: how many pods it asks for, what it is now, or why nothing can be said.

use super::super::pod_view::PodView as _;
use super::replicas::{Measured, Proposal, Sample, Target, Tolerances, propose};
use crate::requests;
use crate::usage::Known;
use impresario_api::quantity::Quantity;
use impresario_client::protocol::resources::{CPU, MEMORY};
use impresario_client::protocol::usage::{Amounts, PodUsage};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;

/// What a pod uses, where that is known.
pub(super) type UsageOf<'a> = &'a dyn Fn(&Pod) -> Option<Known<Arc<PodUsage>>>;

/// What metrics are taken of.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) pods: &'a [&'a Pod],
    pub(super) usage: UsageOf<'a>,
    pub(super) current: i32,
    pub(super) tolerances: Tolerances,
    pub(super) now: Timestamp,
}

/// What a metric says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    pub(super) replicas: i32,
    /// What it is called in conditions and events.
    pub(super) name: String,
    pub(super) status: MetricStatus,
}

/// Why a metric says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown {
    /// Of the condition and the event.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What all metrics together say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Together {
    /// The greatest proposal and the name of its metric; none where nothing is to be done.
    pub(super) proposal: Option<(i32, String)>,
    pub(super) statuses: Vec<MetricStatus>,
    /// The first that says nothing, how many there are of these, and of all.
    pub(super) unknown: Option<(Unknown, usize, usize)>,
}

/// Asks all metrics. Where one says nothing, the others may ask for more pods, and not for fewer.
pub(super) fn together(metrics: &[MetricSpec], subject: Subject<'_>) -> Together {
    let mut proposal: Option<(i32, String)> = None;
    let (mut statuses, mut first, mut unknown) = (Vec::new(), None, 0);
    for metric in metrics {
        match ask(metric, subject) {
            Ok(said) => {
                statuses.push(said.status);
                if proposal.as_ref().is_none_or(|(most, _)| said.replicas > *most) {
                    proposal = Some((said.replicas, said.name));
                }
            }
            Err(why) => {
                // As many entries as there are metrics: whoever reads them goes by their places.
                statuses.push(MetricStatus::default());
                first = first.or(Some(why));
                unknown += 1;
            }
        }
    }
    if unknown > 0 {
        proposal = proposal.filter(|(replicas, _)| *replicas >= subject.current);
    }
    Together { proposal, statuses, unknown: first.map(|first| (first, unknown, metrics.len())) }
}

fn ask(metric: &MetricSpec, subject: Subject<'_>) -> Result<Said, Unknown> {
    let missing = |reason, what: &str, group: &str| {
        let message = format!(
            "unable to get metric {what}: no API of the group {group} is served here; use metrics of type Resource or \
             ContainerResource"
        );
        Err(Unknown { reason, message })
    };
    match metric.type_.as_str() {
        "Resource" => {
            let Some(source) = &metric.resource else { return Err(unfit(&metric.type_)) };
            let said = resource(&source.name, None, &source.target, subject);
            let (proposal, name) = said.map_err(|message| {
                let message = format!("failed to get {} usage: {message}", source.name);
                Unknown { reason: "FailedGetResourceMetric", message }
            })?;
            let current = current(&source.name, proposal);
            let status = ResourceMetricStatus { name: source.name.clone(), current };
            let status = MetricStatus {
                type_: "Resource".into(),
                resource: Some(status),
                ..MetricStatus::default()
            };
            Ok(Said { replicas: proposal.replicas, name, status })
        }
        "ContainerResource" => {
            let Some(source) = &metric.container_resource else {
                return Err(unfit(&metric.type_));
            };
            let said = resource(&source.name, Some(&source.container), &source.target, subject);
            let (proposal, name) = said.map_err(|message| {
                let message = format!("failed to get {} container metric: {message}", source.name);
                Unknown { reason: "FailedGetContainerResourceMetric", message }
            })?;
            let status = ContainerResourceMetricStatus {
                name: source.name.clone(),
                container: source.container.clone(),
                current: current(&source.name, proposal),
            };
            let status = MetricStatus {
                type_: "ContainerResource".into(),
                container_resource: Some(status),
                ..MetricStatus::default()
            };
            Ok(Said { replicas: proposal.replicas, name, status })
        }
        "Pods" => {
            let name = metric.pods.as_ref().map_or("", |source| source.metric.name.as_str());
            missing("FailedGetPodsMetric", name, "custom.metrics.k8s.io")
        }
        "Object" => {
            let name = metric.object.as_ref().map_or("", |source| source.metric.name.as_str());
            missing("FailedGetObjectMetric", name, "custom.metrics.k8s.io")
        }
        "External" => {
            let name = metric.external.as_ref().map_or("", |source| source.metric.name.as_str());
            missing("FailedGetExternalMetric", name, "external.metrics.k8s.io")
        }
        other => Err(unfit(other)),
    }
}

fn unfit(kind: &str) -> Unknown {
    let message = format!("unknown metric source type {kind:?}");
    Unknown { reason: "InvalidMetricSourceType", message }
}

/// How many pods a resource asks for, of all containers or of those of one name.
fn resource(
    name: &str,
    container: Option<&str>,
    target: &MetricTarget,
    subject: Subject<'_>,
) -> Result<(Proposal, String), String> {
    if name != CPU && name != MEMORY {
        return Err(format!(
            "unable to get metrics for resource {name}: cpu and memory are measured"
        ));
    }
    let kind = if container.is_some() { "container resource" } else { "resource" };
    let (wanted, called) = match (target.average_utilization, target.average_value.as_ref()) {
        (Some(percent), _) => (
            Target::Utilization(percent),
            format!("{name} {kind} utilization (percentage of request)"),
        ),
        (None, Some(value)) => (Target::Average(amount(name, value)?), format!("{name} {kind}")),
        (None, None) => {
            return Err("invalid resource metric source: neither an average utilization nor an average value target \
                        was set"
                .to_owned());
        }
    };
    if subject.pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let mut measured = Vec::with_capacity(subject.pods.len());
    for pod in subject.pods {
        let request = match wanted {
            Target::Utilization(_) => request(pod, name, container)?,
            Target::Average(_) => 0,
        };
        let sample = (subject.usage)(pod).and_then(|known| sample(pod, name, container, &known));
        measured.push(Measured { pod, sample, request });
    }
    if measured.iter().all(|one| one.sample.is_none()) {
        return Err(format!(
            "unable to get metrics for resource {name}: no metrics returned from resource metrics API"
        ));
    }
    let (current, tolerances) = (subject.current, subject.tolerances);
    propose(&measured, current, wanted, tolerances, name == CPU, subject.now)
        .map(|proposal| (proposal, called))
}

/// What a pod uses of a resource, if that is known of all of its containers, or of the one that is meant.
fn sample(
    pod: &Pod,
    name: &str,
    container: Option<&str>,
    known: &Known<Arc<PodUsage>>,
) -> Option<Sample> {
    let of = |wanted: &str| known.of.containers.iter().find(|one| one.name == wanted);
    let amounts = match container {
        Some(wanted) => of(wanted)?.amounts,
        None => {
            let mut all = pod.spec.as_ref()?.containers.iter();
            if !all.all(|one| of(&one.name).is_some()) {
                return None;
            }
            known.of.total()
        }
    };
    let Amounts { cpu_nanos, memory_bytes } = amounts;
    let value = if name == CPU { cpu_nanos.div_ceil(1_000_000) } else { memory_bytes };
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    Some(Sample { value, taken: known.taken, window: known.window })
}

/// What a pod asks for of a resource.
fn request(pod: &Pod, name: &str, container: Option<&str>) -> Result<i64, String> {
    let spec = pod.spec.as_ref();
    let sidecars = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let all = spec.map(|spec| spec.containers.iter()).into_iter().flatten().chain(sidecars);
    let mut meant = all.filter(|one| container.is_none_or(|name| one.name == name)).peekable();
    if let (None, Some(container)) = (meant.peek(), container) {
        return Err(format!("container {container} not present in pod {}", pod.name()));
    }
    let mut sum = 0_i64;
    for one in meant {
        if !asks_for(one, name) {
            return Err(format!(
                "missing request for {name} in container {} of Pod {}",
                one.name,
                pod.name()
            ));
        }
        let asked = requests::of_container(one).get(name);
        sum = sum.saturating_add(i64::try_from(asked).unwrap_or(i64::MAX));
    }
    Ok(sum)
}

fn asks_for(container: &Container, name: &str) -> bool {
    container.resources.as_ref().is_some_and(|resources| {
        [&resources.requests, &resources.limits]
            .into_iter()
            .flatten()
            .any(|list| list.contains_key(name))
    })
}

/// An amount as samples have it.
fn amount(name: &str, written: &Written) -> Result<i64, String> {
    let read = written.0.parse::<Quantity>();
    let read = read.map_err(|error| format!("averageValue {:?}: {error}", written.0))?;
    Ok(if name == CPU { read.millis() } else { read.units() })
}

fn current(name: &str, proposal: Proposal) -> MetricValueStatus {
    // As Kubernetes spells them: 12m of a CPU, and bytes without a suffix.
    let average = match name {
        CPU => Quantity::from_millis(proposal.average),
        _ => Quantity::from_units(proposal.average),
    };
    MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(Written(average.to_string())),
        value: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_client::protocol::usage::ContainerUsage;
    use k8s_openapi::jiff::SignedDuration;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    /// A pod of containers `a`, which asks for 100m and 1000 bytes, and `b`, which asks for as much where it is said.
    fn pod(b: Value) -> Pod {
        let long_ago = (now() - SignedDuration::from_hours(1)).to_string();
        let asks = json!({"requests": {"cpu": "100m", "memory": "1000"}});
        let pod = json!({"metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a", "resources": asks}, {"name": "b", "resources": b}]},
            "status": {"phase": "Running", "startTime": long_ago, "conditions":
                [{"type": "Ready", "status": "True", "lastTransitionTime": long_ago}]}});
        serde_json::from_value(pod).unwrap()
    }

    fn known(of: &[(&str, u64, u64)]) -> Known<Arc<PodUsage>> {
        let containers = of.iter().map(|(name, milli, memory_bytes)| ContainerUsage {
            name: (*name).to_owned(),
            amounts: Amounts { cpu_nanos: milli * 1_000_000, memory_bytes: *memory_bytes },
        });
        let pod = PodUsage { uid: "p".into(), window_ms: 5000, containers: containers.collect() };
        Known { taken: now(), window: Duration::from_secs(5), of: Arc::new(pod) }
    }

    fn asked(pod: &Pod, used: &[(&str, u64, u64)], metrics: Value) -> Together {
        let metrics: Vec<MetricSpec> = serde_json::from_value(metrics).unwrap();
        let tolerances = Tolerances { up: 0.1, down: 0.1 };
        let usage = |_: &Pod| (!used.is_empty()).then(|| known(used));
        let subject =
            Subject { pods: &[pod, pod], usage: &usage, current: 2, tolerances, now: now() };
        together(&metrics, subject)
    }

    fn cpu(percent: i32) -> Value {
        json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": percent}}})
    }

    #[test]
    fn the_metric_that_asks_for_most_pods_decides() {
        let pod = pod(json!({"requests": {"cpu": "100m", "memory": "1000"}}));
        let memory = json!({"type": "Resource", "resource": {"name": "memory",
            "target": {"type": "AverageValue", "averageValue": "500"}}});
        let of_a = json!({"type": "ContainerResource", "containerResource": {"name": "cpu",
            "container": "a", "target": {"type": "Utilization", "averageUtilization": 10}}});
        let used = [("a", 40, 600), ("b", 60, 600)];
        let told = asked(&pod, &used, json!([cpu(50), memory, of_a]));
        assert_eq!(told.unknown, None);
        let called = "cpu container resource utilization (percentage of request)".to_owned();
        assert_eq!(told.proposal, Some((8, called)));
        let written = serde_json::to_value(&told.statuses).unwrap();
        let expected = json!([
            {"type": "Resource", "resource": {"name": "cpu",
                "current": {"averageUtilization": 50, "averageValue": "100m"}}},
            {"type": "Resource", "resource": {"name": "memory", "current": {"averageValue": "1200"}}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "a",
                "current": {"averageUtilization": 40, "averageValue": "40m"}}},
        ]);
        assert_eq!(written, expected);
    }

    #[test]
    fn what_cannot_be_said_is_said_and_makes_nothing_fewer() {
        let pod = pod(json!({}));
        let used = [("a", 500, 600), ("b", 500, 600)];
        let pods_metric = json!({"type": "Pods", "pods": {"metric": {"name": "requests"},
            "target": {"type": "AverageValue", "averageValue": "1"}}});
        let average = |amount: &str| {
            json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "AverageValue", "averageValue": amount}}})
        };
        let reason = |told: &Together| {
            told.unknown.as_ref().map(|(why, ..)| (why.reason, why.message.clone())).unwrap()
        };
        let told = asked(&pod, &used, json!([cpu(50)]));
        assert_eq!(
            reason(&told),
            (
                "FailedGetResourceMetric",
                "failed to get cpu usage: missing request for cpu in container b of Pod p".into()
            )
        );
        assert_eq!(told.proposal, None);
        let told = asked(&pod, &[], json!([average("1")]));
        assert!(reason(&told).1.contains("no metrics returned from resource metrics API"));
        // One container of which nothing is known: nothing is known of the pod.
        let told = asked(&pod, &used[..1], json!([average("1")]));
        assert!(reason(&told).1.contains("no metrics returned"), "{told:?}");

        let told = asked(&pod, &used, json!([pods_metric, average("500m")]));
        assert_eq!(reason(&told).0, "FailedGetPodsMetric");
        assert!(reason(&told).1.contains("requests") && reason(&told).1.contains("custom.metrics"));
        assert_eq!(told.proposal.map(|(replicas, _)| replicas), Some(4), "more are made");
        let told = asked(&pod, &used, json!([pods_metric, average("5")]));
        assert_eq!(told.proposal, None, "fewer are not");
        assert_eq!(told.statuses.len(), 2);
    }
}
