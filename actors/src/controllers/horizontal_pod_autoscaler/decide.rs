//! What an autoscaler decides: how many pods there should be, and what it says of itself.

use super::behaviour::{Bounds, History, Rules};
use super::metrics::{Subject, Together, UsageOf, together};
use super::replicas::Tolerances;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::time::Instant;

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";

/// The scale of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scale {
    pub(super) replicas: i32,
    /// Which pods are its own, as text; empty where it does not say.
    pub(super) selector: String,
}

/// What was seen of everything that matters.
pub(super) struct Seen<'a> {
    pub(super) autoscaler: &'a HorizontalPodAutoscaler,
    /// The scale, or why there is none.
    pub(super) scale: Result<Scale, String>,
    /// The pods that the scale's selector selects, or why it selects none.
    pub(super) pods: Result<Vec<&'a Pod>, String>,
    /// Other autoscalers of the same target.
    pub(super) rivals: Vec<String>,
    pub(super) usage: UsageOf<'a>,
    /// The time of day, which pods and conditions carry.
    pub(super) now: Timestamp,
    /// The same moment by the monotonic clock, by which what was done before is timed.
    pub(super) at: Instant,
}

/// That something is told in an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) is_warning: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Told {
    fn warning(reason: &str, message: impl Into<String>) -> Self {
        Self { is_warning: true, reason: reason.to_owned(), message: message.into() }
    }
}

/// That the scale is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rescale {
    pub(super) from: i32,
    pub(super) to: i32,
    pub(super) reason: String,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decision {
    pub(super) status: HorizontalPodAutoscalerStatus,
    pub(super) rescale: Option<Rescale>,
    pub(super) told: Vec<Told>,
    /// The conditions before all of this.
    before: Vec<HorizontalPodAutoscalerCondition>,
}

/// What follows from what is seen and was recommended before.
pub(super) fn decide(seen: &Seen<'_>, history: &mut History) -> Decision {
    let was = seen.autoscaler.status.clone().unwrap_or_default();
    let before = was.conditions.clone().unwrap_or_default();
    let status = HorizontalPodAutoscalerStatus {
        observed_generation: seen.autoscaler.metadata.generation,
        ..was
    };
    let mut decision = Decision { status, rescale: None, told: Vec::new(), before };
    let now = seen.now;
    let scale = match &seen.scale {
        Ok(scale) => scale,
        Err(why) => {
            let message =
                format!("the HPA controller was unable to get the target's current scale: {why}");
            decision.fail(ABLE, "FailedGetScale", &message, why, now);
            return decision;
        }
    };
    let got = "the HPA controller was able to get the target's current scale";
    decision.say(ABLE, true, "SucceededGetScale", got, now);
    let current = scale.replicas;
    history.begin(current, seen.at);
    let spec = &seen.autoscaler.spec;
    let Bounds { least, most, .. } = bounds(spec, current);
    decision.status.current_replicas = Some(current);
    let (wanted, reason) = if current == 0 && least != 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        decision.say(ACTIVE, false, "ScalingDisabled", message, now);
        (0, String::new())
    } else if !seen.rivals.is_empty() {
        // Before the bounds: those of two autoscalers may be in each other's way as well.
        let (selector, rivals) = (&scale.selector, seen.rivals.join(" "));
        let message =
            format!("pods by selector {selector} are controlled by multiple HPAs: [{rivals}]");
        decision.fail(ACTIVE, "AmbiguousSelector", &message, &message, now);
        return decision;
    } else if current > most {
        (most, "Current number of replicas above Spec.MaxReplicas".to_owned())
    } else if current < least {
        (least, "Current number of replicas below Spec.MinReplicas".to_owned())
    } else {
        match decision.by_metrics(seen, scale, history) {
            Some(wanted) => wanted,
            None => return decision,
        }
    };
    decision.status.desired_replicas = wanted;
    if wanted != current {
        decision.rescale = Some(Rescale { from: current, to: wanted, reason });
    }
    decision
}

impl Decision {
    /// How many pods the metrics ask for within the rules, and why.
    fn by_metrics(
        &mut self,
        seen: &Seen<'_>,
        scale: &Scale,
        history: &mut History,
    ) -> Option<(i32, String)> {
        let (now, spec, current) = (seen.now, &seen.autoscaler.spec, scale.replicas);
        if scale.selector.is_empty() {
            let message = "the HPA target's scale is missing a selector";
            self.fail(ACTIVE, "InvalidSelector", message, "selector is required", now);
            return None;
        }
        let pods = match &seen.pods {
            Ok(pods) => pods,
            Err(why) => {
                let message = format!(
                    "couldn't convert selector into a corresponding selector object: {why}"
                );
                self.fail(ACTIVE, "InvalidSelector", &message, &message, now);
                return None;
            }
        };
        let rules = Rules::of(spec);
        let tolerances = Tolerances { up: rules.up.tolerance, down: rules.down.tolerance };
        let subject = Subject { pods, usage: seen.usage, current, tolerances, now };
        let metrics = spec.metrics.as_deref().unwrap_or_default();
        let Together { proposal, statuses, unknown } = together(metrics, subject);
        self.status.current_metrics = Some(statuses).filter(|statuses| !statuses.is_empty());
        let Some((wanted, metric)) = proposal else {
            if let Some((why, count, of)) = unknown {
                let message =
                    format!("the HPA was unable to compute the replica count: {}", why.message);
                if self.fail(ACTIVE, why.reason, &message, &why.message, now) {
                    let all = format!(
                        "invalid metrics ({count} invalid out of {of}), first error is: {}",
                        why.message
                    );
                    self.told.push(Told::warning("FailedComputeMetricsReplicas", all));
                }
            }
            return None;
        };
        let message =
            format!("the HPA was able to successfully calculate a replica count from {metric}");
        self.say(ACTIVE, true, "ValidMetricFound", &message, now);
        let bounds = bounds(spec, current);
        let followed = history.follow(wanted, bounds, &rules, seen.at);
        self.say(ABLE, true, followed.able.0, followed.able.1, now);
        let (is_limited, reason, message) = followed.limited;
        self.say(LIMITED, is_limited, reason, message, now);
        let reason = if followed.replicas > current {
            format!("{metric} above target")
        } else {
            "All metrics below target".to_owned()
        };
        Some((followed.replicas, reason))
    }

    /// What became of the change of the scale.
    pub(super) fn rescaled(
        &mut self,
        rescale: &Rescale,
        outcome: Result<(), String>,
        now: Timestamp,
    ) {
        let Rescale { from, to, reason } = rescale;
        match outcome {
            Ok(()) => {
                let message =
                    format!("the HPA controller was able to update the target scale to {to}");
                self.say(ABLE, true, "SucceededRescale", &message, now);
                self.status.last_scale_time = Some(Time(in_seconds(now)));
                self.told.push(Told {
                    is_warning: false,
                    reason: "SuccessfulRescale".to_owned(),
                    message: format!("New size: {to}; reason: {reason}"),
                });
            }
            Err(why) => {
                let message =
                    format!("the HPA controller was unable to update the target scale: {why}");
                self.say(ABLE, false, "FailedUpdateScale", &message, now);
                self.status.desired_replicas = *from;
                let message = format!("New size: {to}; reason: {reason}; error: {why}");
                self.told.push(Told::warning("FailedRescale", message));
            }
        }
    }

    /// Sets a condition to false; tells of it where it was not said in these words before. Whether it was not.
    fn fail(
        &mut self,
        kind: &str,
        reason: &'static str,
        message: &str,
        event: &str,
        now: Timestamp,
    ) -> bool {
        let is_news = self.say(kind, false, reason, message, now);
        if is_news {
            self.told.push(Told::warning(reason, event));
        }
        is_news
    }

    /// Sets a condition. Whether it was another.
    fn say(
        &mut self,
        kind: &str,
        holds: bool,
        reason: &str,
        message: &str,
        now: Timestamp,
    ) -> bool {
        let holds = if holds { "True" } else { "False" };
        let conditions = self.status.conditions.get_or_insert_default();
        let new = HorizontalPodAutoscalerCondition {
            type_: kind.to_owned(),
            status: holds.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(Time(in_seconds(now))),
            ..HorizontalPodAutoscalerCondition::default()
        };
        let Some(old) = conditions.iter_mut().find(|condition| condition.type_ == kind) else {
            conditions.push(new);
            return true;
        };
        // What is said twice of one look has not changed in between.
        let before = self.before.iter().find(|before| before.type_ == kind);
        let since = before.filter(|before| before.status == holds);
        let since = since.and_then(|before| before.last_transition_time.clone());
        let since = since.or(new.last_transition_time);
        let new = HorizontalPodAutoscalerCondition {
            last_transition_time: since,
            type_: new.type_,
            status: new.status,
            reason: new.reason,
            message: new.message,
            ..HorizontalPodAutoscalerCondition::default()
        };
        let is_news = *old != new;
        *old = new;
        is_news
    }
}

/// What there is, and may be.
fn bounds(spec: &HorizontalPodAutoscalerSpec, current: i32) -> Bounds {
    Bounds { current, least: spec.min_replicas.unwrap_or(1), most: spec.max_replicas }
}

/// As it is stored.
fn in_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
