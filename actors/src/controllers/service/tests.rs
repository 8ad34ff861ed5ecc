//! What a service asks for, by what is seen of its endpoints, pods and nodes.

use super::super::engine::effects::Effect;
use super::super::engine::mirrors::Mirrors;
use super::super::engine::sources::Concerned;
use super::super::engine::view::Part;
use super::super::table::{self, part, pod};
use super::*;
use crate::node::object::FIRST_PORT;
use crate::testing::LIMIT;
use impresario_registry::{MemoryRegistry, Registry as _};
use impresario_registry_api::{Key, Transaction};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A world in which one service is.
struct World {
    service: Value,
    endpoints: Vec<Value>,
    slices: Vec<Value>,
    pods: Vec<&'static str>,
    nodes: Vec<Value>,
    reported: Option<Timestamp>,
}

fn world(pods: &[&'static str]) -> World {
    World {
        service: json!({"metadata": {"name": "web", "uid": "svc", "labels": {"team": "x"}},
            "spec": {"clusterIP": "127.96.0.9", "selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        endpoints: Vec::new(),
        slices: Vec::new(),
        pods: pods.to_vec(),
        nodes: Vec::new(),
        reported: None,
    }
}

impl World {
    fn at(&self, second: i64) -> Effects {
        let service: Service = serde_json::from_value(self.service.clone()).unwrap();
        let pods = self.pods.iter().zip(0..);
        let pods = pods.map(|(words, age)| table::seen(pod(words, age, "rc", "web")));
        let parts = [
            part::<Endpoints>(&self.endpoints),
            part::<EndpointSlice>(&self.slices),
            Part::of(pods.collect()),
            part::<Node>(&self.nodes),
        ];
        let view = View::new(&service, &self.service, &parts).with_reported(self.reported);
        Reconciler::reconcile(&view, Timestamp::from_second(second).unwrap())
    }

    /// Does what is wanted to endpoints and slices, as the engine would.
    fn done(mut self, effects: &Effects) -> Self {
        for effect in &effects.actions {
            match effect {
                Effect::Create(kind, object) if kind.plural == "endpoints" => {
                    self.endpoints.push(object.clone());
                }
                Effect::Create(_, object) => self.slices.push(object.clone()),
                Effect::Rewrite(named, patch) => {
                    let all = self.endpoints.iter_mut().chain(&mut self.slices);
                    let mut all = all.filter(|object| object["metadata"]["name"] == *named.name);
                    let object = all.next().unwrap();
                    *object = impresario_api::patch::merge_patch(object, patch).unwrap();
                }
                Effect::Delete(named) => {
                    self.slices.retain(|slice| slice["metadata"]["name"] != *named.name);
                }
                other => panic!("{other:?}"),
            }
        }
        self
    }

    fn addresses(&self) -> Vec<String> {
        let of = |list: &str| {
            let found = self.endpoints[0]["subsets"][0][list].as_array().cloned();
            found.into_iter().flatten().map(|address| address["ip"].as_str().unwrap().to_owned())
        };
        of("addresses").collect()
    }
}

#[test]
fn endpoints_and_slices_are_made_follow_the_pods_and_are_then_left_alone() {
    let mut world = world(&["a:ready", "b:ready,other", "c:bound"]);
    let effects = world.at(0);
    assert_eq!(effects.actions.len(), 2, "{effects:?}");
    world = world.done(&effects);
    assert_eq!(world.addresses(), ["127.1.0.1"]);
    assert_eq!(world.endpoints[0]["metadata"]["labels"]["team"], "x");
    assert_eq!(world.at(1), Effects::default(), "all is done");

    world.pods = vec!["a:ready", "b:ready"];
    let effects = world.at(2);
    let rewritten = |effect: &Effect| matches!(effect, Effect::Rewrite(..));
    assert!(effects.actions.len() == 2 && effects.actions.iter().all(rewritten), "{effects:?}");
    world = world.done(&effects);
    assert_eq!(world.addresses(), ["127.1.0.1", "127.1.0.2"]);
    assert_eq!(world.slices[0]["endpoints"].as_array().unwrap().len(), 2);

    world.pods = Vec::new();
    let effects = world.at(3);
    world = world.done(&effects);
    assert_eq!((world.slices.len(), &world.endpoints[0]["subsets"]), (1, &json!([])));
    assert_eq!(world.slices[0]["endpoints"], json!([]), "by it one sees that it was looked at");
    assert_eq!(world.at(4), Effects::default());
}

#[test]
fn endpoints_that_do_not_hold_all_addresses_say_so_for_as_long_as_that_is_so() {
    let pods: Vec<&'static str> =
        (0..=endpoints::CAPACITY).map(|n| &*format!("p{n:04}:ready").leak()).collect();
    let mut world = world(&pods);
    let says = |world: &World| {
        let of = |slice: &Value| slice["endpoints"].as_array().unwrap().len();
        let all: usize = world.slices.iter().map(of).sum();
        let annotations = &world.endpoints[0]["metadata"]["annotations"];
        (world.addresses().len(), all, annotations[endpoints::OVER_CAPACITY].clone())
    };
    let step = |world: World, second| {
        let effects = world.at(second);
        world.done(&effects)
    };
    let truncated = (1_000, 1_001, json!(endpoints::TRUNCATED));
    world = step(world, 0);
    assert_eq!(says(&world), truncated);
    assert_eq!(world.at(1), Effects::default(), "all is done");
    world.pods.pop();
    world = step(world, 2);
    assert_eq!(says(&world), (1_000, 1_000, Value::Null));
    world.pods = pods;
    world = step(world, 3);
    assert_eq!(says(&world), truncated);
    assert_eq!(world.at(4), Effects::default(), "all is done");
}

#[tokio::test(start_paused = true)]
async fn a_node_wakes_all_services_when_the_greatest_first_port_changes_and_then_seldom() {
    let registry = MemoryRegistry::default();
    let mirrors = Mirrors::over(Arc::new(registry.clone()));
    let (nodes, services) = (mirrors.of::<Node>(), mirrors.of::<Service>());
    let put = async |resource: &str, object: Value| {
        let key = Key::new(resource, "", object["metadata"]["name"].as_str().unwrap());
        let put = Transaction::default().put(key, object.to_string());
        registry.transact(put).await.unwrap().revision
    };
    for name in ["a", "b"] {
        let made = put("services", json!({"metadata": {"name": name, "uid": name}})).await;
        services.reached(made, LIMIT).await.unwrap();
    }
    let says = async |name: &str, first: u16| {
        let node = json!({"metadata": {"name": name, "annotations": {FIRST_PORT: first.to_string()}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let revision = put("nodes", node).await;
        nodes.reached(revision, LIMIT).await.unwrap();
    };
    says("of-a-user", 1024).await;
    let all = Reconciler::looks_at().sources(&mirrors);
    let source = all.iter().find(|source| source.name().starts_with("nodes")).unwrap();
    let (told, mut hints) = mpsc::channel(512);
    let _following = JoinSet::from_iter([source.run(told)]);
    let everybody = Concerned::Uids(vec!["a".into(), "b".into()]);
    let minute = std::time::Duration::from_mins(1);

    // Another says now this and now that, and all of it less.
    for number in 0..100 {
        says("flips", 80 + number).await;
    }
    tokio::time::sleep(minute).await;
    assert!(hints.try_recv().is_err(), "it changes nothing of what services say");

    // What does is told at once.
    let now = tokio::time::Instant::now();
    says("of-a-user", 90).await;
    assert_eq!(hints.recv().await, Some(everybody.clone()));
    assert!(now.elapsed() < minute / 60, "after {:?}", now.elapsed());
    for number in 0..100 {
        says("flips", 100 + number).await;
    }
    tokio::time::sleep(minute).await;
    assert_eq!(hints.try_recv(), Ok(everybody));
    assert!(hints.try_recv().is_err(), "what comes within a pause is told together");
}

#[test]
fn what_was_made_for_a_service_of_the_name_before_becomes_this_ones() {
    let mut world = world(&["a:ready"]);
    let effects = world.at(0);
    world = world.done(&effects);
    world.service["metadata"]["uid"] = "anew".into();
    let effects = world.at(1);
    world = world.done(&effects);
    for object in world.endpoints.iter().chain(&world.slices) {
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "anew");
    }
    world.service["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
    world.pods = Vec::new();
    assert_eq!(world.at(2), Effects::default(), "one that goes is left alone");
}

#[test]
fn the_slices_of_a_service_without_a_selector_say_what_its_user_does() {
    let mut world = world(&["a:ready"]);
    world.service["spec"].as_object_mut().unwrap().remove("selector");
    assert_eq!(world.at(0), Effects::default());
    world.endpoints = vec![json!({"metadata": {"name": "web"},
        "subsets": [{"addresses": [{"ip": "10.0.0.7"}], "ports": [{"port": 80}]}]})];
    let effects = world.at(1);
    world = world.done(&effects);
    assert_eq!(world.slices[0]["endpoints"][0]["addresses"], json!(["10.0.0.7"]));
    assert_eq!(world.slices[0]["metadata"]["labels"][slices::KEEPER_LABEL], slices::MIRRORER);
    assert_eq!(world.at(1), Effects::default(), "all is done");
    world.endpoints[0]["metadata"]["labels"] = json!({endpoints::NOT_MIRRORED: "true"});
    let effects = world.at(2);
    assert!(world.done(&effects).slices.is_empty());
}

#[test]
fn what_is_made_for_a_service_has_its_labels_and_says_that_it_is_headless() {
    let mut world = world(&["a:ready"]);
    world.service["spec"]["clusterIP"] = "None".into();
    let effects = world.at(0);
    world = world.done(&effects);
    let labels = |world: &World| {
        let of = |object: &Value| object["metadata"]["labels"].clone();
        [of(&world.endpoints[0]), of(&world.slices[0])]
    };
    let (name, keeper) = ENDPOINTS_KEEPER;
    let of_slices = json!({"team": "x", HEADLESS: "",
        slices::SERVICE_LABEL: "web", slices::KEEPER_LABEL: slices::KEEPER});
    assert_eq!(labels(&world), [json!({"team": "x", HEADLESS: "", name: keeper}), of_slices]);
    world.service["metadata"]["labels"] = json!({"tier": "y"});
    world.slices[0]["metadata"]["labels"][slices::KEEPER_LABEL] = slices::MIRRORER.into();
    let effects = world.at(1);
    world = world.done(&effects);
    let of_slices = json!({"tier": "y", HEADLESS: "",
        slices::SERVICE_LABEL: "web", slices::KEEPER_LABEL: slices::KEEPER});
    assert_eq!(labels(&world), [json!({"tier": "y", HEADLESS: "", name: keeper}), of_slices]);
    assert_eq!(world.at(2), Effects::default(), "all is done");
}

#[test]
fn an_endpoint_says_in_which_zone_it_is_and_whom_it_is_meant_for() {
    let mut world = world(&["a:ready", "b:ready,node=2"]);
    world.service["spec"]["trafficDistribution"] = "PreferClose".into();
    let zoned = |name: &str, zone: &str| json!({"metadata": {"name": name, "labels": {nearness::ZONE: zone}}});
    world.nodes = vec![zoned("node-1", "east")];
    let effects = world.at(0);
    world = world.done(&effects);
    let found = &world.slices[0]["endpoints"];
    assert_eq!((&found[0]["nodeName"], &found[0]["zone"]), (&json!("node-1"), &json!("east")));
    assert_eq!(found[0]["hints"]["forZones"], json!([{"name": "east"}]));
    assert_eq!((found[1].get("zone"), found[1].get("hints")), (None, None));
    assert_eq!(world.at(1), Effects::default(), "all is done");
}

#[test]
fn what_is_said_of_ports_is_said_again_after_a_while_only() {
    let mut world = world(&[]);
    let effects = world.at(0);
    world = world.done(&effects);
    world.nodes = vec![json!({"metadata": {"name": "n1", "annotations": {FIRST_PORT: "1024"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}})];
    let effects = world.at(1_000);
    let told = effects.annotations[ALTERNATE_PORTS].clone();
    assert_eq!((told.as_deref(), effects.events.len()), (Some("80/TCP=8080"), 1));
    world.service["metadata"]["annotations"] = json!({ALTERNATE_PORTS: told});
    world.service["status"] = effects.status.unwrap().unwrap();
    world.reported = Some(Timestamp::from_second(1_000).unwrap());
    assert_eq!(world.at(1_001), Effects::default());

    world.nodes.clear();
    let soon = world.at(1_059);
    assert_eq!(soon.look_again, Some(Timestamp::from_second(1_060).unwrap()));
    assert_eq!((soon.status, soon.annotations.len()), (None, 0));
    let late = world.at(1_060);
    assert_eq!(late.annotations[ALTERNATE_PORTS], None);
    assert_eq!(late.status.unwrap().unwrap().get("conditions"), None);
}
