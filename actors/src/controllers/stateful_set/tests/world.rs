//! A namespace in which one stateful set is, and nothing happens but what it asks for and what a test does.

use super::super::super::engine::effects::{Effect, Effects};
use super::super::super::engine::view::{Part, View};
use super::super::super::table::part;
use super::super::reconcile;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// The namespace.
pub(super) struct World {
    pub(super) set: Value,
    pub(super) pods: Vec<Value>,
    pub(super) revisions: Vec<Value>,
    pub(super) claims: Vec<Value>,
    made: usize,
    pub(super) second: i64,
    pub(super) said: Vec<String>,
    /// Whether its pods ever become ready.
    pub(super) works: bool,
    /// The condition of failures.
    pub(super) shortfall: Option<String>,
}

impl World {
    pub(super) fn new(spec: &Value) -> Self {
        let mut set = json!({"metadata": {"name": "db", "namespace": "default", "uid": "set", "generation": 1},
            "spec": {"replicas": 3, "serviceName": "peers", "selector": {"matchLabels": {"app": "db"}},
                "podManagementPolicy": "OrderedReady",
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                "template": {"metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "c", "image": "a"}]}}},
            "status": {"replicas": 0}});
        for (key, value) in spec.as_object().unwrap() {
            set["spec"][key] = value.clone();
        }
        let (pods, revisions, claims) = (Vec::new(), Vec::new(), Vec::new());
        let said = Vec::new();
        let (made, second, works, shortfall) = (0, 1_000, true, None);
        Self { set, pods, revisions, claims, made, second, said, works, shortfall }
    }

    pub(super) fn image(&mut self, image: &str) {
        self.set["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
        self.set["metadata"]["generation"] =
            (self.set["metadata"]["generation"].as_i64().unwrap() + 1).into();
    }

    pub(super) fn parts(&self) -> [Part; 3] {
        [
            part::<ControllerRevision>(&self.revisions),
            part::<PersistentVolumeClaim>(&self.claims),
            part::<Pod>(&self.pods),
        ]
    }

    pub(super) fn look(&self, are_claims_served: bool) -> Effects {
        let set: StatefulSet = serde_json::from_value(self.set.clone()).unwrap();
        let parts = self.parts();
        reconcile(&View::new(&set, &self.set, &parts), are_claims_served, at(self.second))
    }

    /// Looks and does what is wanted. How much that was.
    pub(super) fn step(&mut self) -> usize {
        let effects = self.look(true);
        let count = effects.actions.len();
        self.said.extend(effects.events.into_iter().map(|event| event.reason));
        self.shortfall = effects.shortfall.map(|it| it.reason);
        if let Some(status) = effects.status {
            self.set["status"] = status.unwrap();
        }
        let mut noted = effects.annotations;
        noted.retain(|_, value| value.is_some());
        self.set["metadata"]["annotations"] = json!(noted);
        for effect in effects.actions {
            self.apply(effect);
        }
        count
    }

    fn apply(&mut self, effect: Effect) {
        let effect = match effect {
            Effect::CreateFrom(kind, draft) => Effect::Create(kind, draft.write()),
            effect => effect,
        };
        match effect {
            Effect::Create(kind, mut object) => {
                self.made += 1;
                object["metadata"]["uid"] = format!("made-{}", self.made).into();
                object["metadata"]["creationTimestamp"] = at(self.second).to_string().into();
                let all = match kind.plural {
                    "pods" => &mut self.pods,
                    "controllerrevisions" => &mut self.revisions,
                    _ => &mut self.claims,
                };
                let name = &object["metadata"]["name"];
                assert!(all.iter().all(|it| it["metadata"]["name"] != *name), "two {name}");
                all.push(object);
            }
            Effect::Delete(it) if it.kind.plural == "pods" => {
                let pod = self.pods.iter_mut().find(|pod| pod["metadata"]["uid"] == it.uid);
                pod.unwrap()["metadata"]["deletionTimestamp"] = at(self.second).to_string().into();
            }
            Effect::Delete(it) => {
                self.revisions.retain(|revision| revision["metadata"]["uid"] != it.uid);
            }
            Effect::Change(change) => {
                let all = self.revisions.iter_mut().chain(&mut self.pods);
                let mut meant = all.filter(|it| it["metadata"]["uid"] == change.named.uid.as_str());
                let meant = meant.next().unwrap();
                *meant = impresario_api::patch::merge_patch(meant, &change.patch).unwrap();
            }
            Effect::Rewrite(it, patch) => {
                let mut meant =
                    self.claims.iter_mut().filter(|claim| claim["metadata"]["uid"] == it.uid);
                let meant = meant.next().unwrap();
                *meant = impresario_api::patch::merge_patch(meant, &patch).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }

    /// Pods that are being deleted are gone, and the others ready, if their image works.
    pub(super) fn live(&mut self) {
        self.second += 1;
        self.pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        for pod in &mut self.pods {
            let works = self.works && pod["spec"]["containers"][0]["image"] != "broken";
            if works && pod["status"].is_null() {
                pod["status"] = ready(self.second);
            }
        }
    }

    /// Goes on until nothing happens any more.
    pub(super) fn settle(&mut self) {
        for _ in 0..60 {
            let before = (self.pods.clone(), self.claims.clone(), self.revisions.clone());
            self.step();
            self.live();
            if before == (self.pods.clone(), self.claims.clone(), self.revisions.clone())
                && self.step() == 0
            {
                return;
            }
        }
        panic!("it never settles: {:#?}", self.pods);
    }

    /// Each pod and its image, in order.
    pub(super) fn images(&self) -> String {
        let mut all: Vec<String> = self
            .pods
            .iter()
            .map(|pod| {
                let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
                format!("{}:{image}", pod["metadata"]["name"].as_str().unwrap())
            })
            .collect();
        all.sort();
        all.join(" ")
    }

    pub(super) fn revision_of(&self, image: &str) -> &str {
        let is_of =
            |it: &&Value| it["data"]["spec"]["template"]["spec"]["containers"][0]["image"] == image;
        self.revisions.iter().find(is_of).unwrap()["metadata"]["name"].as_str().unwrap()
    }
}

pub(super) fn ready(second: i64) -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True",
        "lastTransitionTime": at(second).to_string()}]})
}

/// A pod from `0:a,ready`: its number, its image and how it is.
pub(super) fn pod(words: &str, world: &World) -> Value {
    let (ordinal, words) = words.split_once(':').unwrap();
    let words: Vec<&str> = words.split(',').collect();
    let is = |word: &str| words.contains(&word);
    let image = words[0];
    let mut pod = json!({"metadata": {"name": format!("db-{ordinal}"), "uid": format!("uid-{ordinal}"),
            "labels": {"app": "db", "statefulset.kubernetes.io/pod-name": format!("db-{ordinal}"),
                "apps.kubernetes.io/pod-index": ordinal,
                "controller-revision-hash": world.revision_of(image)},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "set",
                "controller": true}]},
        "spec": {"containers": [{"name": "c", "image": image}]}});
    if is("ready") {
        pod["status"] = ready(500);
    }
    if is("failed") {
        pod["status"] = json!({"phase": "Failed"});
    }
    if is("terminating") {
        pod["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    }
    pod
}

/// What is done, in words: `+1a -2`.
pub(super) fn in_words(effects: &Effects) -> String {
    let word = |effect: &Effect| match effect {
        Effect::CreateFrom(_, draft) => {
            let pod = draft.write();
            let name = pod["metadata"]["name"].as_str().unwrap();
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
            format!("+{}{image}", name.strip_prefix("db-").unwrap())
        }
        Effect::Delete(it) => format!("-{}", it.name.strip_prefix("db-").unwrap()),
        other => panic!("{other:?}"),
    };
    effects.actions.iter().map(word).collect::<Vec<_>>().join(" ")
}
