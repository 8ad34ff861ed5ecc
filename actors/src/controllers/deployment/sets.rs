//! The replica sets of a deployment.

use super::super::replicas::REPLICA_FAILURE;
use super::marks::{self, HASH};
use super::sizes::Numbers;
use impresario_api::field::same;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// The sets of a deployment, the oldest first.
pub(super) struct Sets<'a> {
    all: Vec<&'a ReplicaSet>,
    newest: Option<usize>,
}

impl<'a> Sets<'a> {
    /// These sets, of which the oldest with this template is the new one. Templates that are stored in the same
    /// words are found at once; only where none is are all written out to see which say the same.
    pub(super) fn of(template: &PodTemplateSpec, mut all: Vec<&'a ReplicaSet>) -> Self {
        let created =
            |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        all.sort_by(|a, b| (created(a), name(a)).cmp(&(created(b), name(b))));
        let find = |is_it: &dyn Fn(&PodTemplateSpec) -> bool| {
            all.iter().position(|set| set.spec.template.as_ref().is_some_and(is_it))
        };
        let newest = find(&|its| is_equal(its, template)).or_else(|| {
            let template = comparable(template);
            find(&|its| same(&comparable(its), &template))
        });
        Self { all, newest }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a ReplicaSet> {
        self.all.iter().copied()
    }

    /// The one with the template that the deployment has now.
    pub(super) fn newest(&self) -> Option<&'a ReplicaSet> {
        self.newest.map(|at| self.all[at])
    }

    /// All but the new one.
    pub(super) fn old(&self) -> impl Iterator<Item = &'a ReplicaSet> {
        self.all().enumerate().filter(move |(at, _)| Some(*at) != self.newest).map(|(_, set)| set)
    }

    /// What their sizes are decided by.
    pub(super) fn numbers(&self) -> Vec<Numbers> {
        let numbers = |(at, set): (usize, &ReplicaSet)| {
            let status = status(set);
            let generation = set.metadata.generation;
            let said = status.is_some_and(|status| status.observed_generation >= generation);
            let wanted = wanted(set);
            let count = |count: fn(&ReplicaSetStatus) -> i32| status.map_or(0, count);
            let available = count(|status| status.available_replicas.unwrap_or(0));
            Numbers {
                is_new: Some(at) == self.newest,
                wanted,
                // What is said of more pods than it is to have is said of some that go.
                available: available.min(wanted),
                unsure: available > wanted,
                pods: count(|status| {
                    status.replicas.saturating_add(status.terminating_replicas.unwrap_or(0))
                }),
                said,
                asked: marks::number(set, marks::DESIRED),
                most: marks::number(set, marks::MAX),
            }
        };
        self.all().enumerate().map(numbers).collect()
    }

    /// Why a set has not the pods that it is to have: the new one's reason before any other.
    pub(super) fn failure(&self) -> Option<(&'a str, &'a str)> {
        self.newest().into_iter().chain(self.all()).find_map(|set| {
            let mut conditions = status(set)?.conditions.iter().flatten();
            let failure = conditions.find(|condition| {
                condition.type_.as_deref() == Some(REPLICA_FAILURE)
                    && condition.status.as_deref() == Some("True")
            })?;
            Some((failure.reason.as_deref()?, failure.message.as_deref().unwrap_or_default()))
        })
    }
}

/// How many pods a set is to have.
pub(super) fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// What a set says of itself.
pub(super) fn status(set: &ReplicaSet) -> Option<&ReplicaSetStatus> {
    set.status.as_ref()
}

/// What a set is called.
pub(super) fn name(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// Whether two templates are stored in the same words, but for the label that tells their pods from others.
fn is_equal(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let metadata = |template: &PodTemplateSpec| {
        let mut metadata = template.metadata.clone().unwrap_or_default();
        if let Some(labels) = &mut metadata.labels {
            labels.remove(HASH);
        }
        metadata
    };
    a.spec == b.spec && metadata(a) == metadata(b)
}

/// A template without the label that tells its pods from others.
fn comparable(template: &PodTemplateSpec) -> Value {
    let mut value = serde_json::to_value(template).unwrap_or_default();
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_set_of_a_template_is_found_whatever_its_hash_and_however_nothing_is_written() {
        let template = |image: &str, labels: Value, volumes: Value| {
            json!({"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": image}], "volumes": volumes}})
        };
        let set = |name: &str, template: Value| -> ReplicaSet {
            serde_json::from_value(json!({"metadata": {"name": name},
                "spec": {"selector": {}, "template": template}}))
            .unwrap()
        };
        let labels = || json!({"app": "web", HASH: "abc"});
        let sets = [
            set("a", template("one", labels(), Value::Null)),
            set("b", template("two", labels(), json!([]))),
            set("c", template("two", json!({"app": "shop", HASH: "abc"}), Value::Null)),
        ];
        let newest = |image: &str| {
            let wanted = template(image, json!({"app": "web"}), Value::Null);
            let wanted: PodTemplateSpec = serde_json::from_value(wanted).unwrap();
            Sets::of(&wanted, sets.iter().collect()).newest().map(|set| name(set).to_owned())
        };
        assert_eq!(newest("one").as_deref(), Some("a"));
        assert_eq!(newest("two").as_deref(), Some("b"));
        assert_eq!(newest("three"), None);
    }
}
