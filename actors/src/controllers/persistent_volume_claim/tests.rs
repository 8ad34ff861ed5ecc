use super::super::engine::effects::Effect;
use super::super::table::{cells, part};
use super::*;
use impresario_api::patch::merge_patch;
use impresario_api::storage::{IS_DEFAULT_CLASS, LOCAL, NO_PROVISIONER};
use proptest::prelude::*;

const NOW: &str = "2026-03-01T00:00:01Z";

/// A claim, and what is there beside it.
struct World {
    claim: Value,
    volumes: Vec<Value>,
    classes: Vec<Value>,
    pods: Vec<Value>,
}

impl World {
    fn new(spec: &Value) -> Self {
        let mut claim = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u",
                "finalizers": [CLAIM_PROTECTION]},
            "spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
                "resources": {"requests": {"storage": "5Gi"}}},
            "status": {"phase": "Pending"}});
        for (key, value) in spec.as_object().unwrap() {
            claim["spec"][key] = value.clone();
        }
        Self { claim, volumes: Vec::new(), classes: Vec::new(), pods: Vec::new() }
    }

    fn volume(mut self, name: &str, size: &str, spec: &Value) -> Self {
        let mut volume = json!({"metadata": {"name": name, "uid": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
                "hostPath": {"path": "/x"}},
            "status": {"phase": "Available"}});
        for (key, value) in spec.as_object().unwrap() {
            volume["spec"][key] = value.clone();
        }
        self.volumes.push(volume);
        self
    }

    fn class(mut self, name: &str, provisioner: &str, mode: &str) -> Self {
        self.classes.push(json!({"metadata": {"name": name}, "provisioner": provisioner,
            "volumeBindingMode": mode, "reclaimPolicy": "Delete"}));
        self
    }

    fn look(&self) -> Effects {
        let typed: PersistentVolumeClaim = serde_json::from_value(self.claim.clone()).unwrap();
        let concerns = |volume: &&Value| {
            may_be_its(&typed, &serde_json::from_value((*volume).clone()).unwrap())
        };
        let volumes: Vec<_> = self.volumes.iter().filter(concerns).cloned().collect();
        let uses =
            |pod: &&Value| is_used_by(&typed, &serde_json::from_value((*pod).clone()).unwrap());
        let pods: Vec<_> = self.pods.iter().filter(uses).cloned().collect();
        let parts = [
            part::<PersistentVolume>(&volumes),
            part::<Pod>(&pods),
            part::<StorageClass>(&self.classes),
        ];
        Reconciler::reconcile(&View::new(&typed, &self.claim, &parts).at(5), NOW.parse().unwrap())
    }

    /// Looks and does what is wanted. The reasons that were said.
    fn step(&mut self) -> Vec<String> {
        let effects = self.look();
        for effect in effects.actions {
            match effect {
                Effect::Rewrite(named, patch) => {
                    let volume =
                        self.volumes.iter_mut().find(|v| v["metadata"]["name"] == *named.name);
                    let volume = volume.unwrap();
                    *volume = merge_patch(volume, &patch).unwrap();
                }
                Effect::Create(_, mut volume) => {
                    volume["metadata"]["uid"] = volume["metadata"]["name"].clone();
                    self.volumes.push(volume);
                }
                other => panic!("{other:?}"),
            }
        }
        if let Some(patch) = effects.itself {
            self.claim = merge_patch(&self.claim, &patch).unwrap();
        }
        if let Some(status) = effects.status {
            self.claim["status"] = status.unwrap();
        }
        effects.events.into_iter().map(|event| event.reason).collect()
    }

    /// Looks until there is no more to do.
    fn settle(&mut self) -> Vec<String> {
        for _ in 0..10 {
            let before = (self.claim.clone(), self.volumes.clone());
            let said = self.step();
            if before == (self.claim.clone(), self.volumes.clone()) {
                return said;
            }
        }
        panic!("it never settles");
    }

    fn phase(&self) -> &str {
        self.claim["status"]["phase"].as_str().unwrap()
    }

    fn has(&self) -> &str {
        self.claim["spec"]["volumeName"].as_str().unwrap_or_default()
    }
}

#[test]
fn a_claim_gets_the_volume_that_is_its_or_says_why_it_has_none() {
    let its = json!({"claimRef": {"namespace": "ns", "name": "c"}});
    let others = json!({"claimRef": {"namespace": "ns", "name": "d", "uid": "x"}});
    // The claim names a volume; what v and w are; what it has then, and says.
    let table = "
        wants | v      | w      | has | phase   | says
              | 6Gi    | 5Gi    | w   | Bound   |
              | 5Gi    | 5Gi    | v   | Bound   |
              | 4Gi    | 3Gi    |     | Pending | FailedBinding
              | others | 6Gi    | w   | Bound   |
              | 5Gi    | its    | w   | Bound   |
              | others | others |     | Pending | FailedBinding
        v     | 6Gi    | 5Gi    | v   | Bound   |
        v     | its    | 5Gi    | v   | Bound   |
        v     | others | 5Gi    | v   | Pending | FailedBinding
        v     | 1Gi    | 5Gi    | v   | Pending | VolumeMismatch
        x     | 5Gi    | 5Gi    | x   | Pending | FailedBinding
              | goes   | 5Gi    |     | Pending | FailedBinding
        v     | goes   | 5Gi    | v   | Pending | FailedBinding
    ";
    for row in table.trim().lines().skip(1) {
        let [wants, v, w, has, phase, says] = cells(row);
        let mut world = World::new(&json!({"volumeName": wants, "storageClassName": ""}));
        for (name, what) in [("v", v), ("w", w)] {
            world = match what {
                "its" => world.volume(name, "9Gi", &its),
                "goes" => {
                    let mut world = world.volume(name, "9Gi", &its);
                    world.volumes[0]["metadata"]["deletionTimestamp"] = NOW.into();
                    world
                }
                "others" => world.volume(name, "9Gi", &others),
                size => world.volume(name, size, &json!({})),
            };
        }
        let said = world.settle();
        assert_eq!(
            (world.has(), world.phase(), said.join(" ").as_str()),
            (has, phase, says),
            "{row}"
        );
        let owned = world.volumes.iter().filter(|v| v["spec"]["claimRef"]["uid"] == "u").count();
        assert_eq!(owned, usize::from(phase == "Bound"), "{row}");
    }
}

#[test]
fn who_chose_the_volume_is_told_on_both_sides() {
    let mark = |object: &Value| object["metadata"]["annotations"][BOUND_BY_CONTROLLER] == "yes";
    for (wants, reference, marks) in [
        ("", Value::Null, (true, true)),
        ("v", Value::Null, (false, true)),
        ("", json!({"namespace": "ns", "name": "c"}), (true, false)),
    ] {
        let spec = json!({"volumeName": wants, "storageClassName": ""});
        let mut world = World::new(&spec).volume("v", "5Gi", &json!({"claimRef": reference}));
        world.settle();
        assert_eq!(world.claim["metadata"]["annotations"][BIND_COMPLETED], "yes");
        assert_eq!((mark(&world.claim), mark(&world.volumes[0])), marks, "{wants} {reference}");
    }
}

#[test]
fn a_claim_without_a_class_gets_the_default_one_as_soon_as_there_is_one() {
    let mut world = World::new(&json!({}));
    assert_eq!(world.settle(), ["FailedBinding"]);
    world = world.class("standard", "example.com/disk", "Immediate");
    world.classes[0]["metadata"]["annotations"] = json!({IS_DEFAULT_CLASS: "true"});
    assert_eq!(world.settle(), ["ExternalProvisioning"]);
    assert_eq!(world.claim["spec"]["storageClassName"], "standard");
    // The empty class is one that was chosen.
    let mut none = World::new(&json!({"storageClassName": ""}));
    none.classes.clone_from(&world.classes);
    none.settle();
    assert_eq!(none.claim["spec"]["storageClassName"], "");
}

#[test]
fn a_delayed_claim_waits_for_the_node_of_its_pod_and_gets_a_volume_there() {
    let of_class = json!({"storageClassName": "local"});
    let mut world = World::new(&of_class).class("local", LOCAL, "WaitForFirstConsumer");
    world = world.volume("v", "5Gi", &json!({"storageClassName": "local"}));
    assert_eq!(world.settle(), ["WaitForFirstConsumer"]);
    world.claim["metadata"]["annotations"] = json!({SELECTED_NODE: "n1"});
    world.settle();
    assert_eq!((world.has(), world.phase()), ("pvc-u", "Bound"));
    let made = &world.volumes[1];
    assert_eq!(made["spec"]["csi"]["volumeAttributes"]["node"], "n1");
    assert_eq!(made["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    let terms = &made["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["values"], json!(["n1"]));
    assert_eq!(made["metadata"]["finalizers"], json!(["impresario.dev/local-volume"]));
}

#[test]
fn what_a_class_cannot_make_is_refused_by_its_name() {
    let table = [
        (json!({}), "Immediate", LOCAL, "ProvisioningFailed"),
        (
            json!({"accessModes": ["ReadWriteMany"]}),
            "WaitForFirstConsumer",
            LOCAL,
            "ProvisioningFailed",
        ),
        (json!({"volumeMode": "Block"}), "WaitForFirstConsumer", LOCAL, "ProvisioningFailed"),
        (json!({"selector": {}}), "WaitForFirstConsumer", LOCAL, "ProvisioningFailed"),
        (json!({}), "WaitForFirstConsumer", NO_PROVISIONER, "FailedBinding"),
        (json!({"storageClassName": "gone"}), "Immediate", LOCAL, "ProvisioningFailed"),
    ];
    for (more, mode, provisioner, expected) in table {
        let mut spec = json!({"storageClassName": "x"});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let mut world = World::new(&spec).class("x", provisioner, mode);
        if mode != "Immediate" {
            world.claim["metadata"]["annotations"] = json!({SELECTED_NODE: "n1"});
        }
        assert_eq!(world.settle(), [expected], "{more} {mode} {provisioner}");
        assert!(world.volumes.is_empty());
    }
}

#[test]
fn a_claim_is_lost_with_its_volume_and_not_before_that_is_certain() {
    let mut world = World::new(&json!({"storageClassName": ""})).volume("v", "5Gi", &json!({}));
    world.settle();
    let volume = world.volumes.pop().unwrap();
    let typed: PersistentVolumeClaim = serde_json::from_value(world.claim.clone()).unwrap();
    let parts = [part::<PersistentVolume>(&[]).complete(4), part::<Pod>(&[])];
    let view = View::new(&typed, &world.claim, &parts).at(5);
    assert!(Reconciler::reconcile(&view, NOW.parse().unwrap()).status.is_none());
    assert_eq!((world.step(), world.phase()), (vec!["ClaimLost".to_owned()], "Lost"));
    // Another has it.
    world.volumes.push(volume);
    world.settle();
    assert_eq!(world.phase(), "Bound");
    world.volumes[0]["spec"]["claimRef"]["uid"] = "other".into();
    assert_eq!((world.step(), world.phase()), (vec!["ClaimMisbound".to_owned()], "Lost"));
}

#[test]
fn a_claim_that_a_pod_uses_is_held_and_let_go_with_the_last_of_them() {
    let mut world = World::new(&json!({"storageClassName": ""})).volume("v", "5Gi", &json!({}));
    world.settle();
    world.claim["metadata"]["deletionTimestamp"] = NOW.into();
    let pod = |name: &str, spec: Value| json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec});
    let claims = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]);
    world.pods = vec![
        pod("p", json!({"nodeName": "n", "containers": [], "volumes": claims})),
        pod("waits", json!({"containers": [], "volumes": claims})),
    ];
    assert_eq!(world.look().unheld, None);
    assert_eq!(world.phase(), "Bound");
    world.pods.remove(0);
    assert_eq!(world.look().unheld, Some(CLAIM_PROTECTION), "no node has the other");
}

#[test]
fn a_claim_that_asks_for_more_grows_with_its_folder_and_no_other_volume_is_said_to() {
    for (driver, grows) in [(LOCAL_DRIVER, true), ("else.example", false)] {
        let csi = json!({"csi": {"driver": driver, "volumeHandle": "v"}, "hostPath": null});
        let mut world = World::new(&json!({"storageClassName": ""})).volume("v", "5Gi", &csi);
        world.settle();
        world.claim["spec"]["resources"]["requests"]["storage"] = "8Gi".into();
        world.settle();
        let expected = if grows { "8Gi" } else { "5Gi" };
        assert_eq!(world.claim["status"]["capacity"]["storage"], expected, "{driver}");
        assert_eq!(world.volumes[0]["spec"]["capacity"]["storage"], expected);
    }
}

proptest! {
    /// However many claims choose at once, and wherever one stops, no volume is two claims', and a claim that is bound is
    /// so on both sides.
    #[test]
    fn no_volume_is_ever_that_of_two(
        sizes in proptest::collection::vec(1..6u32, 1..5),
        asks in proptest::collection::vec(1..6u32, 1..5),
        turns in proptest::collection::vec((0..5usize, any::<bool>()), 0..40),
    ) {
        let mut claims: Vec<Value> = asks.iter().enumerate().map(|(n, size)| {
            let mut claim = World::new(&json!({"storageClassName": ""})).claim;
            claim["metadata"]["name"] = format!("c{n}").into();
            claim["metadata"]["uid"] = format!("u{n}").into();
            claim["spec"]["resources"]["requests"]["storage"] = format!("{size}Gi").into();
            claim
        }).collect();
        let mut world = World::new(&json!({}));
        for (n, size) in sizes.iter().enumerate() {
            world = world.volume(&format!("v{n}"), &format!("{size}Gi"), &json!({}));
        }
        let turns = turns.into_iter().chain((0..20).map(|n| (n, false)));
        for (turn, stops) in turns {
            let at = turn % claims.len();
            world.claim = claims[at].clone();
            world.step();
            // One that stops between its two writes has not written its own.
            if !stops {
                claims[at] = world.claim.clone();
            }
        }
        for claim in &claims {
            let name = claim["spec"]["volumeName"].as_str().unwrap_or_default();
            if !name.is_empty() {
                let volume = world.volumes.iter().find(|v| v["metadata"]["name"] == name).unwrap();
                prop_assert_eq!(&volume["spec"]["claimRef"]["uid"], &claim["metadata"]["uid"]);
                prop_assert_eq!(&claim["status"]["phase"], "Bound");
            }
        }
        let bound = claims.iter().filter(|claim| claim["status"]["phase"] == "Bound").count();
        let taken = world.volumes.iter().filter(|v| !v["spec"]["claimRef"].is_null()).count();
        prop_assert_eq!(bound, taken, "whoever began has gone on");
    }
}
