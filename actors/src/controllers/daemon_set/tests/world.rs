//! A cluster in which one daemon set is, and nothing happens but what it asks for and what a test does.

use super::super::super::engine::controller::Controller as _;
use super::super::super::engine::effects::{Effect, Effects};
use super::super::super::engine::view::View;
use super::super::super::table::part;
use super::super::{Reconciler, pods};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A cluster in which one daemon set is.
pub(super) struct World {
    pub(super) set: Value,
    pub(super) nodes: Vec<Value>,
    pub(super) pods: Vec<Value>,
    pub(super) revisions: Vec<Value>,
    made: usize,
    pub(super) second: i64,
    /// So many seconds pods take to end that are deleted.
    pub(super) grace: i64,
    /// Names of revisions that others have, and those of them that the last look wanted.
    pub(super) foreign: BTreeSet<String>,
    taken: BTreeSet<String>,
    /// When its status was written last, as far as it knows.
    pub(super) reported: Option<Timestamp>,
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn named(objects: &[Value], name: &str) -> usize {
    objects.iter().position(|object| object["metadata"]["name"] == name).unwrap()
}

impl World {
    pub(super) fn new(nodes: usize, strategy: Value) -> Self {
        let node = |number: usize| json!({"metadata": {"name": format!("n{number}"), "labels": {}}, "spec": {}});
        Self {
            set: json!({"metadata": {"name": "agent", "namespace": "default", "uid": "ds", "generation": 1,
                    "annotations": {"deprecated.daemonset.template.generation": "1"}},
                "spec": {"selector": {"matchLabels": {"app": "agent"}}, "updateStrategy": strategy,
                    "template": {"metadata": {"labels": {"app": "agent"}},
                        "spec": {"containers": [{"name": "c", "image": "a"}]}}},
                "status": {"currentNumberScheduled": 0, "desiredNumberScheduled": 0,
                    "numberMisscheduled": 0, "numberReady": 0}}),
            nodes: (0..nodes).map(node).collect(),
            pods: Vec::new(),
            revisions: Vec::new(),
            made: 0,
            second: 1_000,
            grace: 0,
            foreign: BTreeSet::new(),
            taken: BTreeSet::new(),
            reported: None,
        }
    }

    pub(super) fn image(&mut self, image: &str) {
        self.set["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
    }

    pub(super) fn look(&self) -> Effects {
        let set: DaemonSet = serde_json::from_value(self.set.clone()).unwrap();
        let parts = [
            part::<ControllerRevision>(&self.revisions),
            part::<Pod>(&self.pods),
            part::<Node>(&self.nodes),
        ];
        let view =
            View::new(&set, &self.set, &parts).with_taken(&self.taken).with_reported(self.reported);
        Reconciler::reconcile(&view, at(self.second))
    }

    /// Looks, and does what is wanted as the engine would. How much that was.
    pub(super) fn step(&mut self) -> usize {
        self.reap();
        let effects = self.look();
        self.done(effects)
    }

    pub(super) fn done(&mut self, effects: Effects) -> usize {
        let count = effects.actions.len();
        self.taken.clear();
        for effect in effects.actions {
            let effect = match effect {
                Effect::CreateFrom(kind, draft) => Effect::Create(kind, draft.write()),
                Effect::Replace(it, draft, _) => {
                    self.delete(&it.name);
                    Effect::Create(it.kind, draft.write())
                }
                effect => effect,
            };
            match effect {
                Effect::Create(kind, object)
                    if kind.plural != "pods" && self.has_revision(&object) =>
                {
                    self.taken.insert(object["metadata"]["name"].as_str().unwrap().to_owned());
                }
                Effect::Create(kind, mut object) => {
                    self.made += 1;
                    let metadata = &mut object["metadata"];
                    metadata["uid"] = format!("uid-{}", self.made).into();
                    metadata["creationTimestamp"] = at(self.second).to_string().into();
                    if kind.plural == "pods" {
                        metadata["name"] = format!("agent-{:05}", self.made).into();
                        self.pods.push(object);
                    } else {
                        self.revisions.push(object);
                    }
                }
                Effect::Delete(it) if it.kind.plural == "pods" => {
                    self.delete(&it.name);
                }
                Effect::Delete(it) => {
                    self.revisions.remove(named(&self.revisions, &it.name));
                }
                Effect::Change(change) => {
                    let at = named(&self.revisions, &change.named.name);
                    let revision = &mut self.revisions[at];
                    *revision =
                        impresario_api::patch::merge_patch(revision, &change.patch).unwrap();
                }
                Effect::Adopt(it) => {
                    let all =
                        if it.kind.plural == "pods" { &mut self.pods } else { &mut self.revisions };
                    let at = named(all, &it.name);
                    all[at]["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1",
                        "kind": "DaemonSet", "name": "agent", "uid": "ds", "controller": true}]);
                }
                other => panic!("{other:?}"),
            }
        }
        self.set["status"] = effects.status.map_or(Value::Null, Result::unwrap);
        count
    }

    fn has_revision(&self, object: &Value) -> bool {
        let name = &object["metadata"]["name"];
        self.revisions.iter().any(|it| it["metadata"]["name"] == *name)
            || self.foreign.iter().any(|it| *name == it.as_str())
    }

    /// One that has no node is gone at once.
    fn delete(&mut self, name: &str) {
        let at_ = named(&self.pods, name);
        let pod = &mut self.pods[at_];
        assert!(!is_ending(pod), "{name} is asked to go a second time");
        if self.grace == 0 || pod["spec"]["nodeName"].is_null() {
            self.pods.remove(at_);
        } else {
            pod["metadata"]["deletionTimestamp"] = at(self.second).to_string().into();
        }
    }

    /// What has taken its time to end is gone.
    fn reap(&mut self) {
        let until = at(self.second - self.grace);
        self.pods.retain(|pod| {
            let since = pod["metadata"]["deletionTimestamp"].as_str();
            since.is_none_or(|since| since.parse::<Timestamp>().unwrap() > until)
        });
    }

    /// Binds each pod to the node that it is made for.
    pub(super) fn schedule(&mut self) {
        for pod in &mut self.pods {
            if pod["spec"]["nodeName"].is_null() {
                let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
                pod["spec"]["nodeName"] = json!(pods::node_of(&typed));
            }
        }
    }

    /// All pods that are bound and have not ended become ready.
    pub(super) fn start(&mut self) {
        let now = at(self.second).to_string();
        for pod in
            self.pods.iter_mut().filter(|pod| pod["status"]["phase"] != "Failed" && !is_ready(pod))
        {
            pod["status"] = json!({"phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]});
        }
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..200 {
            self.second += 1;
            let done = self.step();
            self.schedule();
            self.start();
            if done == 0 && !self.pods.iter().any(is_ending) {
                return;
            }
        }
        panic!("it comes to no end");
    }

    pub(super) fn images(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = |pod: &Value| {
            (text(&pod["spec"]["nodeName"]), text(&pod["spec"]["containers"][0]["image"]))
        };
        self.pods.iter().filter(|pod| !is_ending(pod)).map(one).collect()
    }

    /// On how many nodes one is ready and stays.
    pub(super) fn serving(&self) -> usize {
        let serving = self.pods.iter().filter(|pod| is_ready(pod) && !is_ending(pod));
        serving.map(|pod| pod["spec"]["nodeName"].as_str()).collect::<BTreeSet<_>>().len()
    }

    /// On how many nodes there is one of another image, that is not ready, beside a ready one of this.
    pub(super) fn beside(&self, image: &str) -> usize {
        let is_of = |pod: &Value| pod["spec"]["containers"][0]["image"] == image;
        let node = |pod: &Value| {
            let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
            pods::node_of(&typed).map(str::to_owned)
        };
        let stays = || self.pods.iter().filter(|pod| !is_ending(pod));
        let new = stays().filter(|pod| !is_of(pod) && !is_ready(pod));
        let new: BTreeSet<_> = new.map(node).collect();
        stays().filter(|pod| is_of(pod) && is_ready(pod) && new.contains(&node(pod))).count()
    }
}

/// Whether it was asked to go.
pub(super) fn is_ending(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"][0]["status"] == "True"
}
