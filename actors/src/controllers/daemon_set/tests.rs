//! What a daemon set asks for, step by step.

mod late;
mod wakes;
mod world;

use super::super::engine::effects::Effect;
use super::marks::{self, GENERATION, HASH};
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use world::{World, at};

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
    fn a_rollout_ends_whatever_happens_and_neither_misses_nor_has_more_pods_than_it_may(
        nodes in 1_usize..8,
        unavailable in 0_usize..4,
        surge in 0_usize..4,
        mishaps in proptest::collection::vec((0_u8..6, 0_usize..16), 0..40),
    ) {
        let (unavailable, surge) = match (unavailable, surge) {
            (0, 0) => (1, 0),
            (some, 0) => (some, 0),
            (_, some) => (0, some),
        };
        let mut world = World::new(nodes, rolling(json!(unavailable), json!(surge)));
        world.grace = 2;
        world.settle();
        world.image("b");
        let mut mishaps = mishaps.into_iter();
        for _ in 0..400 {
            world.second += 1;
            let (served, beside) = (world.serving(), world.beside("a"));
            world.step();
            let least = served.min(nodes.saturating_sub(unavailable));
            prop_assert!(world.serving() >= least, "{} of {served}", world.serving());
            prop_assert!(world.beside("a") <= beside.max(surge), "{} beside", world.beside("a"));
            world.schedule();
            let mishap = mishaps.next();
            // Now and then nothing starts.
            if !matches!(mishap, Some((0, _))) {
                world.start();
            }
            let Some((what, at)) = mishap else {
                if world.images().values().all(|image| image == "b") && world.serving() == nodes {
                    break;
                }
                continue;
            };
            let count = world.pods.len().max(1);
            match (what, world.pods.get_mut(at % count)) {
                (1, Some(pod)) if !world::is_ending(pod) => {
                    pod["status"] = json!({"phase": "Failed"});
                }
                (2, Some(pod)) if !pod["status"]["conditions"].is_null() => {
                    pod["status"]["conditions"][0]["status"] = "False".into();
                }
                (3, _) => {
                    let at = at % world.revisions.len();
                    let labels = &mut world.revisions[at]["metadata"]["labels"];
                    labels.as_object_mut().unwrap().remove(HASH);
                }
                _ => {}
            }
        }
        world.settle();
        let images: Vec<_> = world.images().into_values().collect();
        prop_assert_eq!(images, vec!["b"; nodes]);
        prop_assert_eq!(world.set["status"]["updatedNumberScheduled"].as_u64(), Some(nodes as u64));
    }
}

#[test]
fn no_look_takes_away_more_pods_than_can_be_taken_back() {
    let mut world = World::new(1_200, rolling(json!(1), json!(0)));
    world.settle();
    for node in &mut world.nodes {
        node["spec"]["taints"] = json!([{"key": "mine", "effect": "NoExecute"}]);
    }
    world.second += 1;
    world.step();
    assert_eq!(world.pods.len(), 1_200 - BURST);
    world.settle();
    assert_eq!(world.pods.len(), 0);
}

#[test]
fn a_revision_whose_name_another_has_is_made_under_another() {
    let mut first = World::new(1, rolling(json!(1), json!(0)));
    first.settle();
    let name = first.revisions[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let mut world = World::new(1, rolling(json!(1), json!(0)));
    world.foreign.insert(name.clone());
    world.settle();
    assert_eq!((world.pods.len(), world.revisions.len()), (1, 1));
    assert_ne!(world.revisions[0]["metadata"]["name"], name.as_str());
    assert_eq!(world.set["status"]["collisionCount"], 1);
}

#[test]
fn a_revision_that_nobody_has_is_adopted_and_one_that_leaves_is_made_anew() {
    let mut world = World::new(1, rolling(json!(1), json!(0)));
    world.settle();
    world.revisions[0]["metadata"]["ownerReferences"] = json!([]);
    world.settle();
    assert_eq!(world.revisions.len(), 1);
    assert_eq!(world.revisions[0]["metadata"]["ownerReferences"][0]["uid"], "ds");

    let now = at(world.second).to_string();
    world.revisions[0]["metadata"]["deletionTimestamp"] = now.into();
    world.settle();
    assert_eq!(world.revisions.len(), 2);
    let hash = &world.revisions[1]["metadata"]["labels"][HASH];
    assert_eq!(&world.pods[0]["metadata"]["labels"][HASH], hash);
}

#[test]
fn other_counts_are_written_now_and_then_and_what_else_is_new_at_once() {
    let mut world = World::new(2, rolling(json!(1), json!(0)));
    world.settle();
    world.reported = Some(at(world.second));
    assert_eq!(world.look().look_again, None, "there is nothing new");
    world.pods[0]["status"]["conditions"][0]["status"] = "False".into();
    let soon = world.look();
    let until = at(world.second) + k8s_openapi::jiff::SignedDuration::from_millis(500);
    assert_eq!((soon.status, soon.look_again), (None, Some(until)));
    let mut other = world.set.clone();
    other["metadata"]["generation"] = 2.into();
    std::mem::swap(&mut world.set, &mut other);
    assert!(world.look().status.is_some());
    world.set = other;
    world.second += 1;
    assert_eq!(world.look().status.unwrap().unwrap()["numberReady"], 1);
}

#[test]
fn a_pod_for_a_node_that_is_gone_is_asked_to_go_once() {
    let mut world = World::new(2, rolling(json!(1), json!(0)));
    world.step();
    world.step();
    world.nodes.pop();
    let now = at(world.second).to_string();
    // Somebody's finalizer holds it.
    world.pods[1]["metadata"]["deletionTimestamp"] = now.into();
    assert_eq!(world.look().actions, []);
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
