//! Keeps as many pods alive as a `ReplicaSet` object asks for: see [`replicas`].

use super::engine::controller::Controller;
use super::engine::effects::Effects;
use super::engine::looks_at::LooksAt;
use super::engine::view::View;
use super::replicas::{self, Asked, REPLICA_FAILURE, some};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

/// Decides for replica sets.
#[derive(Debug)]
pub enum Reconciler {}

impl Controller for Reconciler {
    type Object = ReplicaSet;

    const FAILURE: Option<&'static str> = Some(REPLICA_FAILURE);

    fn looks_at() -> LooksAt<ReplicaSet> {
        LooksAt::itself()
            .owned_or_adopted::<Pod>(|set: &ReplicaSet| Some(set.spec.selector.clone()))
    }

    fn reconcile(view: &View<'_, ReplicaSet>, now: Timestamp) -> Effects {
        let set = view.object;
        let spec = &set.spec;
        let asked = Asked {
            selector: spec.selector.clone(),
            replicas: spec.replicas,
            min_ready_seconds: spec.min_ready_seconds,
            template: spec.template.as_ref(),
        };
        let (mut effects, counts) = replicas::keep(view, &asked, now);
        effects.report(&ReplicaSetStatus {
            replicas: counts.replicas,
            fully_labeled_replicas: some(counts.fully_labeled),
            ready_replicas: some(counts.ready),
            available_replicas: some(counts.available),
            terminating_replicas: some(counts.terminating),
            observed_generation: set.metadata.generation,
            conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        });
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::effects::Effect;
    use super::super::engine::view::Part;
    use super::super::table::{self, pod};
    use super::*;
    use serde_json::{Value, json};

    fn reconcile(set: &Value, pods: &[&str]) -> Effects {
        let object: ReplicaSet = serde_json::from_value(set.clone()).unwrap();
        let pods =
            pods.iter().zip(0..).map(|(words, age)| table::seen(pod(words, age, "rs", "web")));
        let parts = [Part::of(pods.collect())];
        Reconciler::reconcile(&View::new(&object, set, &parts), Timestamp::UNIX_EPOCH)
    }

    fn set(replicas: i32) -> Value {
        json!({"metadata": {"name": "web", "uid": "rs", "generation": 2}, "spec": {
            "replicas": replicas,
            "selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "shop"]}]},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}})
    }

    #[test]
    fn pods_are_told_by_expressions_and_what_there_is_is_reported() {
        let effects = reconcile(
            &set(3),
            &[
                "a:ready",
                "b:ready,orphan",
                "c:ready,other",
                "d:ready,orphan,other",
                "e:ready,terminating",
            ],
        );
        let words: Vec<_> = effects
            .actions
            .iter()
            .map(|effect| match effect {
                Effect::Adopt(pod) => format!("adopt {}", pod.name),
                Effect::Release(pod) => format!("release {}", pod.name),
                Effect::Delete(pod) => format!("delete {}", pod.name),
                Effect::CreateFrom(_, pod) => {
                    let owner = &pod.write()["metadata"]["ownerReferences"][0];
                    assert_eq!(
                        (&owner["apiVersion"], &owner["kind"]),
                        (&json!("apps/v1"), &json!("ReplicaSet"))
                    );
                    "create".to_owned()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(words, ["adopt b", "release c", "create"]);
        let status = effects.status.unwrap().unwrap();
        assert_eq!(
            status,
            json!({"replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
                "terminatingReplicas": 1, "observedGeneration": 2})
        );
    }
}
