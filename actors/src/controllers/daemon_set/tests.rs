//! A cluster in which one daemon set is, and nothing but what it asks for happens.

use super::super::engine::effects::Effect;
use super::super::table::part;
use super::marks::{self, GENERATION, HASH};
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

struct World {
    set: Value,
    nodes: Vec<Value>,
    pods: Vec<Value>,
    revisions: Vec<Value>,
    made: usize,
    second: i64,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn named(objects: &[Value], name: &str) -> usize {
    objects.iter().position(|object| object["metadata"]["name"] == name).unwrap()
}

impl World {
    fn new(nodes: usize, strategy: Value) -> Self {
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
        }
    }

    fn image(&mut self, image: &str) {
        self.set["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
    }

    fn look(&self) -> Effects {
        let set: DaemonSet = serde_json::from_value(self.set.clone()).unwrap();
        let parts = [
            part::<ControllerRevision>(&self.revisions),
            part::<Pod>(&self.pods),
            part::<Node>(&self.nodes),
        ];
        Reconciler::reconcile(&View::new(&set, &self.set, &parts), at(self.second))
    }

    /// Does what is wanted, as the engine would. Pods that are deleted end at once.
    fn step(&mut self) -> usize {
        let effects = self.look();
        self.done(effects)
    }

    fn done(&mut self, effects: Effects) -> usize {
        let count = effects.actions.len();
        for effect in effects.actions {
            let effect = match effect {
                Effect::CreateFrom(kind, draft) => Effect::Create(kind, draft.write()),
                Effect::Replace(it, draft, _) => {
                    self.pods.remove(named(&self.pods, &it.name));
                    Effect::Create(it.kind, draft.write())
                }
                effect => effect,
            };
            match effect {
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
                    self.pods.remove(named(&self.pods, &it.name));
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
                other => panic!("{other:?}"),
            }
        }
        self.set["status"] = effects.status.map_or(Value::Null, Result::unwrap);
        count
    }

    /// Binds each pod to the node that it is made for.
    fn schedule(&mut self) {
        for pod in &mut self.pods {
            if pod["spec"]["nodeName"].is_null() {
                let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
                pod["spec"]["nodeName"] = json!(pods::node_of(&typed));
            }
        }
    }

    /// All pods that are bound become ready.
    fn start(&mut self) {
        let now = at(self.second).to_string();
        for pod in self.pods.iter_mut().filter(|pod| pod["status"].is_null()) {
            pod["status"] = json!({"phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]});
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            self.second += 1;
            let done = self.step();
            self.schedule();
            self.start();
            if done == 0 {
                return;
            }
        }
        panic!("it comes to no end");
    }

    fn images(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = |pod: &Value| {
            (text(&pod["spec"]["nodeName"]), text(&pod["spec"]["containers"][0]["image"]))
        };
        self.pods.iter().map(one).collect()
    }

    fn ready(&self) -> usize {
        self.pods.iter().filter(|pod| !pod["status"].is_null()).count()
    }
}

fn rolling(unavailable: Value, surge: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
}

#[test]
fn each_node_that_it_is_meant_for_gets_a_pod_that_goes_nowhere_else() {
    let mut world = World::new(4, rolling(json!(1), json!(0)));
    world.set["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    for node in [0, 1, 3] {
        world.nodes[node]["metadata"]["labels"]["disk"] = "ssd".into();
    }
    world.nodes[3]["spec"]["taints"] = json!([{"key": "mine", "effect": "NoSchedule"}]);
    world.nodes[1]["spec"]["taints"] =
        json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
    world.settle();
    assert_eq!(world.images().into_keys().collect::<Vec<_>>(), ["n0", "n1"]);
    let pod = &world.pods[0];
    let hash = &world.revisions[0]["metadata"]["labels"][HASH];
    assert_eq!(
        (&pod["metadata"]["labels"][HASH], pod["metadata"]["generateName"].as_str()),
        (hash, Some("agent-"))
    );
    assert_eq!(pod["metadata"]["labels"]["pod-template-generation"], "1");
    assert_eq!(
        pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"],
        json!({"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["n0"]}]}]})
    );
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 6);
    let status = &world.set["status"];
    let count = |field: &str| status[field].as_i64();
    assert_eq!((count("desiredNumberScheduled"), count("numberReady")), (Some(2), Some(2)));
    assert_eq!((count("updatedNumberScheduled"), count("numberAvailable")), (Some(2), Some(2)));
    assert_eq!(count("observedGeneration"), Some(1));

    // A taint that comes later lets a pod stay, one that says so takes it away; another label too.
    world.nodes[0]["spec"]["taints"] = json!([{"key": "mine", "effect": "NoSchedule"}]);
    world.settle();
    assert_eq!(world.images().len(), 2);
    assert_eq!(world.set["status"]["numberMisscheduled"], 1);
    world.nodes[0]["spec"]["taints"] = json!([{"key": "mine", "effect": "NoExecute"}]);
    world.nodes[1]["metadata"]["labels"] = json!({});
    world.nodes[2]["metadata"]["labels"]["disk"] = "ssd".into();
    world.settle();
    assert_eq!(world.images().into_keys().collect::<Vec<_>>(), ["n2"]);
}

#[test]
fn what_somebody_wrote_for_the_count_of_templates_keeps_no_pod_from_being_made() {
    let mut world = World::new(1, rolling(json!(1), json!(0)));
    world.set["metadata"]["annotations"]["deprecated.daemonset.template.generation"] =
        "not a label!".into();
    world.settle();
    assert!(world.pods[0]["metadata"]["labels"].get(GENERATION).is_none());
}

#[test]
fn a_change_of_the_template_waits_for_somebody_who_deletes_where_the_set_says_so() {
    let mut world = World::new(2, json!({"type": "OnDelete"}));
    world.settle();
    world.image("b");
    world.settle();
    assert_eq!(world.images().into_values().collect::<Vec<_>>(), ["a", "a"]);
    assert_eq!(world.revisions.len(), 2);
    world.pods.remove(0);
    world.settle();
    let mut images: Vec<_> = world.images().into_values().collect();
    images.sort();
    assert_eq!(images, ["a", "b"]);
}

#[test]
fn going_back_takes_up_the_old_revision_with_the_highest_number_and_old_ones_are_forgotten() {
    let mut world = World::new(2, rolling(json!("100%"), json!(0)));
    world.set["spec"]["revisionHistoryLimit"] = 1.into();
    for image in ["a", "b", "a"] {
        world.image(image);
        world.settle();
    }
    let numbers = |world: &World| {
        let mut all: Vec<_> =
            world.revisions.iter().map(|it| it["revision"].as_i64().unwrap()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(numbers(&world), [2, 3]);
    assert_eq!(world.images().into_values().collect::<Vec<_>>(), ["a", "a"]);
    for image in ["c", "d"] {
        world.image(image);
        world.settle();
    }
    assert_eq!(numbers(&world), [4, 5]);
    let held = &world.revisions.iter().find(|it| it["revision"] == 5).unwrap()["data"];
    assert_eq!(held["spec"]["template"]["$patch"], "replace");
    assert_eq!(held["spec"]["template"]["spec"]["containers"][0]["image"], "d");
}

#[test]
fn a_pod_that_fails_at_once_is_replaced_ever_more_slowly() {
    let mut world = World::new(1, rolling(json!(1), json!(0)));
    world.settle();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let now = at(world.second).to_string();
        world.pods[0]["metadata"]["creationTimestamp"] = now.into();
        world.pods[0]["status"] = json!({"phase": "Failed"});
        let until = world.look().look_again.unwrap();
        assert!(world.look().actions.is_empty(), "it is kept to be looked at");
        waits.push(until.as_second() - world.second);
        world.second = until.as_second();
        let effects = world.look();
        let is_said = |effect: &Effect| matches!(effect, Effect::Replace(.., Some(_)));
        assert!(effects.actions.len() == 1 && effects.actions.iter().all(is_said), "{effects:?}");
        world.step();
        assert_eq!(world.pods.len(), 1);
        world.schedule();
    }
    assert_eq!(waits, [1, 2, 4, 8]);
}

#[test]
fn a_new_pod_that_fails_beside_the_old_one_is_replaced_ever_more_slowly_too() {
    let mut world = World::new(1, rolling(json!(0), json!(1)));
    world.settle();
    let old = world.pods[0]["metadata"]["uid"].clone();
    world.image("b");
    while world.pods.len() < 2 {
        world.second += 1;
        world.step();
    }
    let mut waits = Vec::new();
    for _ in 0..4 {
        world.schedule();
        assert_eq!((world.pods.len(), &world.pods[0]["metadata"]["uid"]), (2, &old));
        world.pods[1]["metadata"]["creationTimestamp"] = at(world.second).to_string().into();
        world.pods[1]["status"] = json!({"phase": "Failed"});
        let until = world.look().look_again.unwrap();
        assert!(world.look().actions.is_empty(), "it is kept to be looked at");
        waits.push(until.as_second() - world.second);
        world.second = until.as_second();
        world.step();
    }
    assert_eq!(waits, [1, 2, 4, 8]);
}

#[test]
fn of_more_pods_that_fail_than_a_look_replaces_each_is_counted_and_said_when_it_is_its_turn() {
    let mut world = World::new(1_200, rolling(json!(1), json!(0)));
    let mut failed: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..16 {
        world.second += 1;
        let effects = world.look();
        let is_silent = |effect: &Effect| matches!(effect, Effect::Replace(_, _, None));
        assert!(effects.actions.len() <= BURST + 1 && !effects.actions.iter().any(is_silent));
        assert!(effects.events.is_empty(), "of the others nothing is said");
        world.done(effects);
        world.schedule();
        for pod in world.pods.iter_mut().filter(|pod| pod["status"].is_null()) {
            let node = pod["spec"]["nodeName"].as_str().unwrap().to_owned();
            let before = failed.entry(node).or_default();
            let said = pod["metadata"]["annotations"][marks::FAILURES].as_str();
            assert_eq!(said.map_or(0, |said| said.parse().unwrap()), *before);
            *before += 1;
            pod["status"] = json!({"phase": "Failed"});
        }
    }
    assert!(failed.len() == 1_200 && failed.values().all(|count| *count > 1), "{failed:?}");
}

#[test]
fn a_pod_for_a_node_that_is_gone_waits_for_it_no_longer_and_one_too_many_goes() {
    let mut world = World::new(2, rolling(json!(1), json!(0)));
    world.step();
    world.step();
    assert_eq!(world.pods.len(), 2, "no scheduler has come by yet");
    world.nodes.pop();
    world.settle();
    assert_eq!(world.images().into_keys().collect::<Vec<_>>(), ["n0"]);
    let mut twin = world.pods[0].clone();
    twin["metadata"]["name"] = "agent-twin".into();
    twin["metadata"]["uid"] = "twin".into();
    twin["metadata"]["creationTimestamp"] = at(world.second).to_string().into();
    world.pods.push(twin);
    world.settle();
    assert_eq!((world.pods.len(), &world.pods[0]["metadata"]["uid"]), (1, &json!("uid-2")));
}

proptest! {
    #[test]
    fn a_rollout_ends_and_neither_misses_nor_has_more_pods_than_it_may(
        nodes in 1_usize..8,
        unavailable in 0_usize..4,
        surge in 0_usize..4,
        slow in proptest::collection::vec(proptest::bool::ANY, 0..40),
    ) {
        let (unavailable, surge) = match (unavailable, surge) {
            (0, 0) => (1, 0),
            (some, 0) => (some, 0),
            (_, some) => (0, some),
        };
        let mut world = World::new(nodes, rolling(json!(unavailable), json!(surge)));
        world.settle();
        world.image("b");
        let mut slow = slow.into_iter();
        for _ in 0..200 {
            world.second += 1;
            let done = world.step();
            prop_assert!(world.ready() + unavailable >= nodes, "{} of {nodes}", world.ready());
            prop_assert!(world.pods.len() <= nodes + surge, "{} of {nodes}", world.pods.len());
            let ready = world.ready();
            world.schedule();
            // Now and then nothing starts.
            let waits = slow.next().unwrap_or(false);
            if !waits {
                world.start();
            }
            if done == 0 && !waits && world.ready() == ready {
                break;
            }
        }
        let images: Vec<_> = world.images().into_values().collect();
        prop_assert_eq!(images, vec!["b"; nodes]);
        prop_assert_eq!(world.set["status"]["updatedNumberScheduled"].as_u64(), Some(nodes as u64));
    }
}

#[test]
fn a_set_whose_selector_says_anything_of_the_labels_that_it_gives_makes_nothing_and_says_so() {
    for key in [HASH, GENERATION] {
        let mut world = World::new(2, rolling(json!(1), json!(0)));
        let requirement = json!({"key": key, "operator": "DoesNotExist"});
        world.set["spec"]["selector"]["matchExpressions"] = json!([requirement]);
        let effects = world.look();
        assert!(effects.actions.is_empty());
        assert_eq!(effects.events[0].reason, "SelectorNeverMatches");
    }
}

#[test]
fn a_pod_that_is_adopted_before_it_has_a_node_is_let_be() {
    let mut world = World::new(1, rolling(json!(1), json!(0)));
    world.settle();
    world.pods.push(json!({"metadata": {"name": "bare", "namespace": "default", "uid": "bare",
            "labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": "b"}]}}));
    let effects = world.look();
    assert!(matches!(effects.actions.as_slice(), [Effect::Adopt(named)] if named.name == "bare"));
}

#[test]
fn a_cordoned_node_keeps_its_pod_and_holds_no_rollout_up() {
    let mut world = World::new(3, rolling(json!(1), json!(0)));
    world.settle();
    world.nodes[0]["spec"]["unschedulable"] = true.into();
    world.image("b");
    world.settle();
    let images = world.images();
    assert_eq!(
        (images["n0"].as_str(), images["n1"].as_str(), images["n2"].as_str()),
        ("a", "b", "b")
    );
    world.nodes[0]["spec"] = json!({});
    world.settle();
    assert_eq!(world.images()["n0"], "b");
}

#[test]
fn a_revision_that_has_lost_its_label_gets_it_back() {
    let mut world = World::new(1, rolling(json!(1), json!(0)));
    world.settle();
    let label = world.revisions[0]["metadata"]["labels"][HASH].take();
    world.revisions[0]["metadata"]["labels"].as_object_mut().unwrap().remove(HASH);
    world.step();
    assert_eq!(world.revisions[0]["metadata"]["labels"][HASH], label);
}
