//! Evicting: deleting a pod as far as its disruption budget leaves that to whoever asks.
//!
//! The budget's status says how many more pods may be made to miss. Each eviction takes one off, by compare-and-set, and
//! writes down which pod it is, before it deletes that: so no two take the same one, at whatever member they ask. What the
//! budget's controller counts from then on knows of the pod. (API reference, Eviction v1; Kubernetes documentation,
//! "API-initiated Eviction".)

use super::Objects;
use super::pause::pause;
use super::write::{Change, Step};
use crate::may::Verb;
use impresario_api::admission::{DeleteOptions, Deletion, Door, admit_delete, metadata_time};
use impresario_api::catalog::find;
use impresario_api::field::{as_map, at, has, list, list_mut, number, object_mut, set, text};
use impresario_api::kinds::poddisruptionbudgets::{DISRUPTION_ALLOWED, INSUFFICIENT, SYNC_FAILED};
use impresario_api::resource::Row;
use impresario_api::selector::LabelSelector;
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_client::objects::stored::take_revision;
use impresario_client::objects::{Deleted, ListQuery, Stored, WriteOptions};
use impresario_registry_api::Consistency;
use impresario_runtime::clock;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// How often a pod that changed meanwhile is looked at anew.
const ATTEMPTS: usize = 10;
/// So many evicted pods may not have begun to go at once.
const MOST_ON_THEIR_WAY: usize = 2_000;
/// So long what was taken for a pod is held for it: as long as the budget's controller takes it to go.
const GOES_WITHIN: SignedDuration = SignedDuration::from_secs(120);
/// When to ask again where a budget has not been counted since it was changed, in seconds.
const UNCOUNTED: u32 = 10;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// What the budgets leave to whoever evicts a pod.
enum Leave {
    /// It may go, whatever happens to it meanwhile.
    Freely,
    /// It may go as it is: another state of it might be one that a budget protects.
    AsItIs,
    /// It may go if this budget has one left.
    ByBudget(String),
}

impl Objects {
    /// Deletes a pod if its disruption budget allows that.
    pub async fn evict(
        &self,
        pods: &Row,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
        write: &WriteOptions,
    ) -> Result<Deleted, Status> {
        for attempt in 0..ATTEMPTS {
            let found = self.find(pods, namespace, name, Consistency::Linearizable).await?;
            let seen = found.ok_or_else(|| Status::not_found(pods, name))?;
            let now = clock::timestamp();
            // What would be refused anyway takes nothing off a budget.
            let revision = seen.revision.to_string();
            admit_delete(pods, &seen.object, &revision, options, now)?;
            let leave = self.leave(namespace, &seen.object).await?;
            if let Leave::ByBudget(budget) = &leave {
                self.may_go(pods, namespace, name, &seen.object, write).await?;
                self.take_from(budget, namespace, &seen.object, now, write).await?;
            }
            let is_as_seen = |stored: &Stored| match leave {
                Leave::AsItIs => stored.revision == seen.revision,
                Leave::Freely | Leave::ByBudget(_) => {
                    text(&stored.object, "metadata.uid") == text(&seen.object, "metadata.uid")
                }
            };
            let outcome = self
                .settle(
                    Verb::Delete,
                    pods,
                    namespace,
                    name,
                    write,
                    Step::Deleted(&mut |stored, _| {
                        if !is_as_seen(stored) {
                            return Err(Status::modified(pods, name));
                        }
                        let mut pod = stored.object.clone();
                        take_revision(&mut pod);
                        disrupt(&mut pod, now);
                        let revision = stored.revision.to_string();
                        Ok(match admit_delete(pods, &pod, &revision, options, now)? {
                            Deletion::Gone => Change::Remove(pod),
                            Deletion::Marked(marked) => Change::Put(marked),
                            Deletion::Unchanged => Change::Keep,
                        })
                    }),
                )
                .await;
            match outcome {
                Ok((Change::Remove(_), pod)) => return Ok(Deleted::Gone(pod)),
                Ok((Change::Put(_) | Change::Keep, pod)) => return Ok(Deleted::Lingers(pod)),
                // It is another pod by now, or in another state: what was taken for it does not hold.
                Err(status) if status.code() == 409 && options.resource_version.is_none() => {
                    pause(attempt).await;
                }
                Err(status) => return Err(status),
            }
        }
        Err(Status::modified(pods, name))
    }

    /// What the budgets of its namespace say of a pod.
    async fn leave(&self, namespace: &str, pod: &Value) -> Result<Leave, Status> {
        let is_going = has(pod, "metadata.deletionTimestamp");
        match text(pod, "status.phase") {
            // What has ended, goes or never began is nobody's loss.
            "Succeeded" | "Failed" => return Ok(Leave::Freely),
            _ if is_going => return Ok(Leave::Freely),
            "Pending" => return Ok(Leave::AsItIs),
            _ => {}
        }
        let Some(resource) = find("policy", "v1", "poddisruptionbudgets") else {
            return Ok(Leave::Freely);
        };
        let query = ListQuery { namespace: Some(namespace.to_owned()), ..ListQuery::default() };
        let budgets = self.list(&resource, &query).await?.items;
        let labels = at(pod, "metadata.labels").as_object();
        let selects = |budget: &&Value| {
            let selector = LabelSelector::from_object(at(budget, "spec.selector"));
            selector.is_ok_and(|selector| selector.matches(labels))
        };
        let mut budgets = budgets.iter().filter(selects);
        let Some(budget) = budgets.next() else { return Ok(Leave::Freely) };
        if budgets.next().is_some() {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        let budget_says = |field: &str| number(at(budget, "status"), field).unwrap_or(0);
        let (healthy, desired) = (budget_says("currentHealthy"), budget_says("desiredHealthy"));
        let always = text(budget, "spec.unhealthyPodEvictionPolicy") == "AlwaysAllow";
        // One that is not ready is not among those that are counted on.
        if !is_ready(pod) && (always || (healthy >= desired && desired > 0)) {
            return Ok(Leave::AsItIs);
        }
        Ok(Leave::ByBudget(text(budget, "metadata.name").to_owned()))
    }

    /// Takes one off what a budget allows, for this pod.
    async fn take_from(
        &self,
        budget: &str,
        namespace: &str,
        pod: &Value,
        now: Timestamp,
        write: &WriteOptions,
    ) -> Result<(), Status> {
        let resource = find("policy", "v1", "poddisruptionbudgets")
            .ok_or_else(|| Status::internal("no disruption budgets are served"))?;
        let take = |old: &Value| taken_from(&resource, old, pod, now);
        let taken = self.modify(&resource, Door::Status, namespace, budget, write, take).await;
        match taken {
            Ok(_) => Ok(()),
            // It was there a moment ago: the pod is looked at anew by who asks again.
            Err(status) if status.code() == 404 => {
                Err(refused(format!("The disruption budget {budget} went meanwhile."), Some(1)))
            }
            Err(status) if status.code() == 409 => {
                let why = format!("The disruption budget {budget} is asked by many at once.");
                Err(refused(why, Some(1)))
            }
            Err(status) => Err(status),
        }
    }
}

/// The budget with one less allowed, and this pod written down as on its way.
fn taken_from(
    resource: &Row,
    budget: &Value,
    pod: &Value,
    now: Timestamp,
) -> Result<Value, Status> {
    let name = text(budget, "metadata.name");
    let says = |path: &str| number(budget, path).unwrap_or(0);
    if says("status.observedGeneration") < says("metadata.generation") {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(why, Some(UNCOUNTED)));
    }
    if is_taken(budget, pod, now) {
        return Ok(budget.clone());
    }
    let on_their_way =
        at(budget, "status.disruptedPods").as_object().map_or(0, serde_json::Map::len);
    if on_their_way >= MOST_ON_THEIR_WAY {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(resource, name, why));
    }
    let allowed = says("status.disruptionsAllowed");
    if allowed <= 0 {
        let conditions = list(budget, "status.conditions").iter();
        let mut failed = conditions.filter(|condition| text(condition, "reason") == SYNC_FAILED);
        let why = match failed.next() {
            Some(condition) => format!(
                "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
                text(condition, "message")
            ),
            None => format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                says("status.desiredHealthy"),
                says("status.currentHealthy")
            ),
        };
        return Err(refused(why, None));
    }
    let mut budget = budget.clone();
    let status = object_mut(&mut budget, "status");
    set(status, "disruptionsAllowed", allowed - 1);
    let pod = text(pod, "metadata.name");
    set(object_mut(status, "disruptedPods"), pod, metadata_time(now));
    if allowed == 1 {
        for condition in list_mut(status, "conditions") {
            if text(condition, "type") == DISRUPTION_ALLOWED {
                set(condition, "status", "False");
                set(condition, "reason", INSUFFICIENT);
                set(condition, "lastTransitionTime", metadata_time(now));
            }
        }
    }
    Ok(budget)
}

/// Whether one was taken off for this very pod a moment ago, by who tried to evict it and did not get so far.
fn is_taken(budget: &Value, pod: &Value, now: Timestamp) -> bool {
    let time = |text: &str| text.parse::<Timestamp>().ok();
    let disrupted = at(budget, "status.disruptedPods").get(text(pod, "metadata.name"));
    let Some(since) = disrupted.and_then(Value::as_str).and_then(time) else { return false };
    // Another pod of the name may have come since.
    let made = time(text(pod, "metadata.creationTimestamp"));
    made.is_some_and(|made| made <= since) && now.duration_since(since) < GOES_WITHIN
}

/// 429, with what has to be waited for.
fn refused(why: String, retry_after: Option<u32>) -> Status {
    let cause = Cause { field: String::new(), reason: CauseReason::DisruptionBudget, message: why };
    // Where nobody knows how long it takes, clients that ask by themselves are not told to.
    Status { retry_after, ..Status::too_many_requests(REFUSED, 0) }.with_cause(cause)
}

fn is_ready(pod: &Value) -> bool {
    list(pod, "status.conditions")
        .iter()
        .any(|condition| text(condition, "type") == "Ready" && text(condition, "status") == "True")
}

/// Writes on a pod why it goes: whoever counts what failed may leave it out.
fn disrupt(pod: &mut Value, now: Timestamp) {
    const TYPE: &str = "DisruptionTarget";
    if has(pod, "metadata.deletionTimestamp") {
        return;
    }
    let status = object_mut(pod, "status");
    let mut conditions = list(status, "conditions").to_vec();
    conditions.retain(|condition| text(condition, "type") != TYPE);
    conditions.push(json!({
        "type": TYPE,
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": metadata_time(now),
    }));
    as_map(status).insert("conditions".to_owned(), conditions.into());
}

#[cfg(test)]
mod tests;
