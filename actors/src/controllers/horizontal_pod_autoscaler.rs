//! Makes more and fewer pods of a target as its metrics ask for: a `HorizontalPodAutoscaler`.
//!
//! ```text
//! target      the scale of the target, of whatever kind that has one: read, and changed
//! metrics     what each metric says, by what nodes tell of the pods ([`Usage`])
//! replicas    how many pods would bring what is used to what should be
//! behaviour   how fast that is followed
//! decide      all of this together, and what it says of itself: a plain function
//! ```
//!
//! It looks at everything each fifteen seconds, when it is told that its object changed, and as soon as a node of its pods has
//! told something new: whether one has costs a look into memory each second. It rests fifty times as long as a look takes,
//! so that however many pods there are it takes no more than a fiftieth of a thread. What was recommended before is in memory:
//! who takes over begins with what there is. (API reference, HorizontalPodAutoscaler v2; Kubernetes documentation, "Horizontal
//! Pod Autoscaling".)

mod behaviour;
mod decide;
mod metrics;
mod replicas;
mod target;

#[cfg(test)]
mod tests;

use super::activation::{Activation, Kind, Subjects};
use super::control::{Look, LookError, Next};
use super::looking;
use super::mirror::Seen;
use super::owned;
use super::view::{CATCH_UP, View};
use crate::usage::Usage;
use behaviour::{History, Rules};
use decide::{Decision, decide};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_api::selector::{LabelNeed, LabelSelector};
use impresario_objects::Objects;
use impresario_registry_api::{Fence, Remedy, Revision, Transaction};
use impresario_runtime::clock;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often everything is looked at, and how often it is written down what is measured where nothing else changed.
const INTERVAL: Duration = Duration::from_secs(15);
/// How often it is asked whether a node has told something new.
const GLANCE: Duration = Duration::from_secs(1);
/// So many times as long as a look took there is none for news of nodes.
const REST: u32 = 50;

/// The kind of the actors of autoscalers. What is used on nodes is looked up in `usage`.
#[must_use]
pub fn kind(view: &View, usage: &Usage) -> Kind {
    let (view, usage) = (view.clone(), usage.clone());
    Kind::Each {
        objects: Subjects::of(&view.mirrors.of::<HorizontalPodAutoscaler>()),
        prefix: "horizontalpodautoscaler".into(),
        start: looking(move |activation| {
            Arc::new(Autoscaler::new(view.clone(), usage.clone(), activation))
        }),
        sources: Vec::new(),
    }
}

/// The work on one autoscaler.
struct Autoscaler {
    view: View,
    objects: Objects,
    usage: Usage,
    fence: Fence,
    namespace: String,
    name: String,
    uid: String,
    state: Mutex<State>,
}

/// What it remembers between looks.
#[derive(Default)]
struct State {
    history: History,
    last: Option<Last>,
    /// The uid of the target that all of this is about; null before there is one.
    target: Value,
    /// The revision of the target's last change by this one: an older state of it is not looked at.
    scaled: Revision,
    scaled_at: Option<Timestamp>,
    /// When the status was written last.
    told: Option<Instant>,
}

/// The last look at everything.
struct Last {
    at: Instant,
    /// Of the autoscaler, with what was written of it by this look.
    revision: Revision,
    /// What it was asked for. Autoscalers have no generation in Kubernetes.
    spec: HorizontalPodAutoscalerSpec,
    /// The nodes of the pods, and when the one that told last did.
    nodes: BTreeSet<String>,
    heard: Option<Instant>,
    /// Until when nothing is looked at but what a user changed of the autoscaler.
    rests_until: Instant,
}

impl State {
    /// That it is about this target. Of another one nothing is known that was recommended or done.
    fn is_about(&mut self, target: &Value) {
        if !target.is_null() && *target != self.target {
            self.target = target.clone();
            self.scaled = Revision::default();
            self.history = History::default();
        }
    }
}

impl Autoscaler {
    fn new(view: View, usage: Usage, activation: &Activation) -> Self {
        Self {
            objects: view.objects.fenced(activation.fence),
            view,
            usage,
            fence: activation.fence,
            namespace: activation.namespace.clone(),
            name: activation.name.clone(),
            uid: activation.uid.clone(),
            state: Mutex::default(),
        }
    }

    /// When a node of these told something last.
    fn heard(&self, nodes: &BTreeSet<String>) -> Option<Instant> {
        let now = clock::now();
        nodes.iter().filter_map(|node| self.usage.heard(node, now)).max()
    }

    /// When to ask again, where nothing new is known since the last look.
    fn may_wait(&self, seen: &Seen<HorizontalPodAutoscaler>, now: Instant) -> Option<Duration> {
        let state = self.state.lock();
        let last = state.last.as_ref()?;
        let due = last.at + INTERVAL;
        let is_new = last.revision < seen.entry.mod_revision
            || now >= due
            || self.heard(&last.nodes) != last.heard;
        let rests = now < last.rests_until;
        let waits = last.spec == seen.object.spec && (rests || !is_new);
        waits.then(|| due.saturating_duration_since(now).min(GLANCE))
    }

    async fn look_once(&self) -> Result<Next, LookError> {
        let mirror = self.view.mirrors.of::<HorizontalPodAutoscaler>();
        mirror.reached(1, CATCH_UP).await?;
        self.view.pods.reached(1, CATCH_UP).await?;
        let seen = mirror.get(&self.namespace, &self.name);
        let is_meant = |seen: &Seen<HorizontalPodAutoscaler>| {
            seen.object.metadata.uid.as_deref() == Some(self.uid.as_str())
                && seen.object.metadata.deletion_timestamp.is_none()
        };
        let Some(seen) = seen.filter(is_meant) else { return Ok(Next::WhenTold) };
        let now = clock::timestamp();
        let begun = clock::now();
        if let Some(wait) = self.may_wait(&seen, begun) {
            return Ok(after(wait));
        }
        let autoscaler = &*seen.object;
        let wanted = &autoscaler.spec.scale_target_ref;
        let target = target::read(&self.objects, &self.namespace, wanted).await?;
        {
            let mut state = self.state.lock();
            state.is_about(&target.uid);
            if target.revision < state.scaled {
                // Its own change is not seen yet on this member.
                return Ok(after(GLANCE));
            }
        }
        let mut pods = Vec::new();
        let mut selected = Ok(());
        if let Ok(scale) = &target.scale {
            match LabelSelector::parse(&scale.selector) {
                Ok(selector) if !scale.selector.is_empty() => {
                    pods = self.view.pods.picked_within(&self.namespace, |pod| {
                        pod.metadata.labels.as_ref().is_some_and(|own| selects(&selector, own))
                    });
                }
                Ok(_) => {}
                Err(error) => selected = Err(error.to_string()),
            }
        }
        let nodes = pods.iter().filter_map(|pod| node_of(&pod.object)).map(ToOwned::to_owned);
        let nodes: BTreeSet<String> = nodes.collect();
        let heard = self.heard(&nodes);
        let rivals = mirror.picked_within(&self.namespace, |other| {
            other.metadata.uid != autoscaler.metadata.uid
                && other.metadata.deletion_timestamp.is_none()
                && is_the_same(&other.spec.scale_target_ref, wanted)
        });
        let mut rivals: Vec<String> =
            rivals.into_iter().map(|other| other.entry.key.name).collect();
        if !rivals.is_empty() {
            rivals.push(self.name.clone());
            rivals.sort();
        }
        let mut decision = {
            let told_at = clock::now();
            let usage =
                |pod: &Pod| self.usage.of_pod(node_of(pod)?, pod.metadata.uid.as_deref()?, told_at);
            let view = decide::Seen {
                autoscaler,
                scale: target.scale.clone(),
                pods: selected.map(|()| pods.iter().map(|pod| &*pod.object).collect()),
                rivals,
                usage: &usage,
                now,
                at: begun,
            };
            decide(&view, &mut self.state.lock().history)
        };
        let mut is_refused = false;
        if let Some(rescale) = decision.rescale.clone() {
            let outcome = target.write(&self.objects, &self.namespace, rescale.to).await;
            if let Err(lost) = &outcome
                && lost.is_fenced()
            {
                return outcome.map(|_| Next::WhenTold).map_err(Into::into);
            }
            if matches!(outcome, Ok(None)) {
                // Somebody has changed the target since it was seen: what to do about it is decided anew.
                return Ok(after(GLANCE));
            }
            is_refused = outcome.is_err();
            if let Ok(Some(revision)) = outcome {
                let mut state = self.state.lock();
                state.scaled = revision;
                let rules = Rules::of(&autoscaler.spec);
                state.history.scaled(rescale.from, rescale.to, &rules, begun);
            }
            let outcome = outcome.map(|_| ()).map_err(|status| status.to_string());
            decision.rescaled(&rescale, outcome, now);
            let mut state = self.state.lock();
            state.scaled_at = decision.status.last_scale_time.as_ref().map(|time| time.0);
        }
        // A status that said so may not have been written.
        let scaled_at = self.state.lock().scaled_at;
        let said = decision.status.last_scale_time.take().map(|time| time.0);
        decision.status.last_scale_time = said.max(scaled_at).map(Time);
        for told in &decision.told {
            if told.is_warning {
                self.view.warning(&seen, &told.reason, &told.message);
            } else {
                self.view.normal(&seen, &told.reason, &told.message);
            }
        }
        let written = self.write(&seen, &decision, begun).await?;
        let took = clock::now().saturating_duration_since(begun);
        // Who refuses is not asked again as often as nodes tell something.
        let rest = if is_refused { INTERVAL } else { took.saturating_mul(REST).min(INTERVAL) };
        let rests_until = begun + rest;
        let last = written.map(|revision| Last {
            at: begun,
            revision,
            spec: autoscaler.spec.clone(),
            nodes,
            heard,
            rests_until,
        });
        self.state.lock().last = last;
        Ok(after(GLANCE))
    }

    /// Writes the status where it is another; the revision that the autoscaler has then, nothing where somebody else was
    /// quicker. What is measured changes all the time, and so do the words about it: both are written now and then.
    async fn write(
        &self,
        seen: &Seen<HorizontalPodAutoscaler>,
        decision: &Decision,
        now: Instant,
    ) -> Result<Option<Revision>, LookError> {
        let revision = seen.entry.mod_revision;
        let was = seen.object.status.clone().unwrap_or_default();
        if was == decision.status {
            return Ok(Some(revision));
        }
        // What was not measured and is now is news.
        let is_known = was.current_metrics.as_ref().map(Vec::len)
            == decision.status.current_metrics.as_ref().map(Vec::len);
        let is_recent = self.state.lock().told.is_some_and(|told| now < told + INTERVAL);
        if without_words(&was) == without_words(&decision.status) && is_known && is_recent {
            return Ok(Some(revision));
        }
        let status = serde_json::to_value(&decision.status);
        let mut status = status.map_err(|error| LookError::Damaged {
            key: seen.entry.key.to_string(),
            cause: error.to_string(),
        })?;
        // As Kubernetes has it, it is there in any case.
        if status.get("currentMetrics").is_none() {
            status["currentMetrics"] = Value::Null;
        }
        let (compare, operation) = owned::change(seen, |object| object["status"] = status)?;
        let transaction = Transaction {
            compares: vec![compare],
            operations: vec![operation],
            fence: Some(self.fence),
            ..Transaction::default()
        };
        match self.view.registry().transact(transaction).await {
            Ok(committed) => {
                self.state.lock().told = Some(now);
                Ok(Some(committed.revision))
            }
            Err(error) if error.remedy() == Remedy::ReadAgain => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Look for Autoscaler {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}

/// To be looked at again after so long.
fn after(time: Duration) -> Next {
    let due = clock::timestamp().checked_add(time);
    Next::At(due.unwrap_or(Timestamp::MAX))
}

/// A status without what is measured and the words of its conditions.
fn without_words(status: &HorizontalPodAutoscalerStatus) -> HorizontalPodAutoscalerStatus {
    let mut rest = HorizontalPodAutoscalerStatus { current_metrics: None, ..status.clone() };
    for condition in rest.conditions.iter_mut().flatten() {
        condition.reason = None;
        condition.message = None;
    }
    rest
}

/// The node that a pod is bound to.
fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

/// Whether two autoscalers mean the same object, be it by another version.
fn is_the_same(one: &CrossVersionObjectReference, other: &CrossVersionObjectReference) -> bool {
    let group = |reference: &CrossVersionObjectReference| {
        let version = reference.api_version.clone().unwrap_or_default();
        version.split_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default()
    };
    (&one.kind, &one.name) == (&other.kind, &other.name) && group(one) == group(other)
}

/// Whether the labels of a pod satisfy every requirement of a selector.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_nothing()
        && selector.needs().all(|(key, need)| {
            let value = labels.get(key);
            let is_one_of = |values: &[String]| value.is_some_and(|value| values.contains(value));
            match need {
                LabelNeed::In(values) => is_one_of(values),
                LabelNeed::NotIn(values) => !is_one_of(values),
                LabelNeed::Exists => value.is_some(),
                LabelNeed::Absent => value.is_none(),
            }
        })
}
