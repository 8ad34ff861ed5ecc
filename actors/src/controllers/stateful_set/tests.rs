mod stored;
mod world;

use super::super::engine::effects::Effect;
use super::super::table::cells;
use super::*;
use failures::FAILURES;
use proptest::prelude::*;
use serde_json::json;
use world::{World, at, in_words, pod};

#[test]
fn pods_come_go_and_are_replaced_in_the_order_and_as_many_as_is_asked_for() {
    // Three pods are asked for, of template b, after a; x was in between.
    let table = "
        policy   | spec          | pods                                             | does
        ordered  |               |                                                  | +0b
        ordered  |               | 0:b                                              |
        ordered  |               | 0:b,ready                                        | +1b
        ordered  |               | 0:b,ready,terminating                            |
        ordered  |               | 0:b,ready 1:b,failed                             | -1
        ordered  |               | 0:b,ready 2:b,ready                              | +1b
        ordered  |               | 0:b,ready 1:b,ready 2:b,ready                    |
        ordered  |               | 0:b,ready 1:b,ready 2:b,ready 3:b,ready 4:b,ready | -4
        ordered  |               | 0:b,ready 1:b,ready 2:b,ready 3:b,ready 4:b,ready,terminating |
        ordered  |               | 0:b,ready 1:b 2:b,ready 3:b,ready                |
        ordered  |               | 0:b,ready 1:b,ready 2:b,ready 3:b                | -3
        ordered  |               | 0:b,ready 1:b,ready 2:b,ready 3:b 4:b            |
        ordered  |               | 0:b,ready 1:b,ready 2:b,ready 3:b 4:b,failed     | -4
        ordered  |               | 0:a,ready 1:a,ready 2:a,ready                    | -2
        ordered  |               | 0:a,ready 1:a,ready                              | +2b
        ordered  |               | 0:a,ready 1:a,ready 2:b                          |
        ordered  |               | 0:a,ready 1:a,ready 2:b,ready                    | -1
        ordered  |               | 0:a,ready 1:a,ready 2:x                          | -2
        ordered  |               | 0:a,ready 1:a 2:b,ready                          |
        ordered  |               | 0:a                                              | -0
        ordered  |               | 0:b,ready 1:a                                    | -1
        ordered  |               | 0:a 1:a,ready 2:b                                |
        ordered  |               | 0:a 1:a 2:b                                      |
        ordered  |               | 0:a 1:b                                          |
        ordered  |               | 0:b,ready 1:a                                    | -1
        ordered  |               | 0:b,ready 1:a 2:a                                | -1
        ordered  |               | 0:x,ready 1:a 2:a                                | -1
        ordered  | no partition  | 0:a,ready 1:a,ready 2:a,ready                    | -2
        ordered  | no partition  | 0:a 1:a 2:a                                      | -0
        ordered  | no partition  | 1:a 2:a                                          | +0b
        ordered  | no partition  | 0:b,ready 2:a                                    | +1b
        ordered  | no partition  | 1:a,ready 2:b                                    | +0a
        ordered  | no partition  | 0:a 1:a,ready 2:b                                |
        ordered  | partition=2   | 0:a,ready 1:a,ready 2:b,ready                    |
        ordered  | partition=2   | 0:a,ready 2:b,ready                              | +1a
        ordered  | partition=9   | 0:a,ready 1:a,ready                              | +2a
        ordered  | unavailable=2 | 0:a,ready 1:a,ready 2:a,ready                    | -2 -1
        ordered  | OnDelete      | 0:a,ready 1:a,ready 2:a,ready                    |
        ordered  | OnDelete      | 0:a,ready 2:a,ready                              | +1b
        ordered  | OnDelete      | 0:a                                              |
        parallel |               |                                                  | +0b +1b +2b
        parallel |               | 0:b 1:b,failed                                   | -1 +2b
        parallel |               | 0:b 1:b,terminating 2:b                          |
        parallel |               | 0:b,ready 1:b,ready 2:b,ready 3:b 4:b,ready      | -4 -3
        parallel |               | 0:a,ready 1:a,ready 2:a,ready                    | -2
        parallel |               | 0:a,ready 1:a,ready 2:b                          |
        parallel |               | 0:a,ready 1:a 2:a,ready                          | -1
        parallel |               | 0:a 1:a 2:a                                      | -2
        parallel | unavailable=2 | 0:a,ready 1:a,ready 2:b                          | -1
        parallel | unavailable=2 | 0:a 1:a,ready 2:a,ready                          | -2 -0
        parallel | partition=1   | 0:a 1:a,ready 2:a,ready                          |
        parallel | no partition  | 0:a 1:a,ready 2:a,ready                          | -0
        parallel | no partition  | 1:a,ready 2:a,ready                              | +0b
        parallel | no partition  | 0:b 1:a,ready 2:a,ready                          |
        parallel | no partition  | 1:a,ready 2:b                                    | +0a
        parallel | no partition  | 0:a,ready 1:a,ready 2:a,ready                    | -2";
    for row in table.lines().skip(2) {
        let [policy, spec, pods, does] = cells(row);
        let mut world = World::new(&json!({}));
        for image in ["x", "a"] {
            world.image(image);
            world.step();
            world.pods.clear();
        }
        world.set["status"]["currentRevision"] = world.revision_of("a").into();
        world.image("b");
        world.step();
        world.pods = pods.split_whitespace().map(|words| pod(words, &world)).collect();
        if policy == "parallel" {
            world.set["spec"]["podManagementPolicy"] = "Parallel".into();
        }
        let strategy = &mut world.set["spec"]["updateStrategy"];
        match spec.split_once('=') {
            Some(("partition", number)) => {
                strategy["rollingUpdate"]["partition"] = number.parse::<i32>().unwrap().into();
            }
            Some((_, number)) => {
                strategy["rollingUpdate"]["maxUnavailable"] = number.parse::<i32>().unwrap().into();
            }
            None if spec == "OnDelete" => *strategy = json!({"type": "OnDelete"}),
            None if spec == "no partition" => *strategy = json!({"type": "RollingUpdate"}),
            None => {}
        }
        assert_eq!(in_words(&world.look(true)), does, "in row {row}");
    }
}

#[test]
fn a_pod_knows_its_name_its_number_and_its_peers() {
    let mut world = World::new(&json!({"replicas": 1, "ordinals": {"start": 5}}));
    world.settle();
    let pod = &world.pods[0];
    assert_eq!(pod["metadata"]["name"], "db-5");
    assert_eq!(pod["metadata"].get("generateName"), None);
    assert_eq!(
        pod["metadata"]["labels"],
        json!({"app": "db", "statefulset.kubernetes.io/pod-name": "db-5",
            "apps.kubernetes.io/pod-index": "5",
            "controller-revision-hash": world.set["status"]["updateRevision"]})
    );
    assert_eq!(
        (&pod["spec"]["hostname"], &pod["spec"]["subdomain"]),
        (&json!("db-5"), &json!("peers"))
    );
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "StatefulSet");
}

#[test]
fn a_template_is_rolled_out_from_the_last_and_the_way_back_is_its_revision() {
    let mut world = World::new(&json!({}));
    world.settle();
    assert_eq!(world.images(), "db-0:a db-1:a db-2:a");
    let first = world.set["status"].clone();
    assert_eq!(first["currentRevision"], first["updateRevision"]);
    assert_eq!((&first["readyReplicas"], &first["updatedReplicas"]), (&json!(3), &json!(3)));
    world.set["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 2.into();
    world.image("b");
    world.settle();
    assert_eq!(world.images(), "db-0:a db-1:a db-2:b");
    let partly = world.set["status"].clone();
    assert_eq!(partly["currentRevision"], first["currentRevision"]);
    assert_eq!((&partly["currentReplicas"], &partly["updatedReplicas"]), (&json!(2), &json!(1)));
    world.set["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 0.into();
    world.settle();
    assert_eq!(world.images(), "db-0:b db-1:b db-2:b");
    assert_eq!(world.set["status"]["currentRevision"], world.set["status"]["updateRevision"]);
    world.image("a");
    world.settle();
    assert_eq!(world.images(), "db-0:a db-1:a db-2:a");
    assert_eq!(world.set["status"]["currentRevision"], first["currentRevision"]);
    let numbers: Vec<i64> =
        world.revisions.iter().map(|it| it["revision"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [3, 2], "it is the newest again");
}

#[test]
fn what_never_worked_is_left_behind_when_it_is_taken_back() {
    let mut world = World::new(&json!({}));
    world.settle();
    world.image("broken");
    world.settle();
    assert_eq!(world.images(), "db-0:a db-1:a db-2:broken");
    world.image("a");
    world.settle();
    assert_eq!(world.images(), "db-0:a db-1:a db-2:a");

    let mut never = World::new(&json!({}));
    never.image("broken");
    never.settle();
    assert_eq!(never.images(), "db-0:broken");
    never.image("b");
    never.settle();
    assert_eq!(never.images(), "db-0:b db-1:b db-2:b");
}

#[test]
fn a_pod_that_fails_as_soon_as_it_is_there_is_kept_ever_longer_before_the_next_comes() {
    for policy in ["OrderedReady", "Parallel"] {
        let mut world = World::new(&json!({"replicas": 1, "podManagementPolicy": policy}));
        world.step();
        let (mut waits, mut told) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            world.step();
            world.pods[0]["status"] = json!({"phase": "Failed"});
            let effects = world.look(true);
            assert_eq!(in_words(&effects), "", "people can look at it");
            let until = effects.look_again.unwrap().as_second();
            waits.push(until - world.second);
            world.step();
            told.extend(world.shortfall.take());
            world.second = until;
            assert_eq!(in_words(&world.look(true)), "-0");
            world.step();
            world.live();
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300], "{policy}");
        assert_eq!(told, ["PodsFail"; 6], "{policy}");

        // Another template has failed at nothing yet, and is not kept waiting.
        world.step();
        world.pods[0]["status"] = json!({"phase": "Failed"});
        world.step();
        world.image("b");
        world.step();
        assert_eq!(in_words(&world.look(true)), "-0");
        world.settle();
        assert_eq!(world.images(), "db-0:b");
        assert_eq!(world.pods[0]["metadata"].get("annotations"), None);
        assert_eq!(world.set["metadata"]["annotations"].get(FAILURES), None);
    }
}

#[test]
fn only_so_many_revisions_are_kept_as_are_asked_for_and_none_goes_that_a_pod_is_of() {
    let mut world = World::new(&json!({"revisionHistoryLimit": 1}));
    for image in ["a", "b", "c", "d"] {
        world.image(image);
        world.settle();
    }
    assert_eq!(world.revisions.len(), 2);
    world.set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    for image in ["e", "f", "g"] {
        world.image(image);
        world.settle();
    }
    assert_eq!(world.images(), "db-0:d db-1:d db-2:d");
    world.revision_of("d");
}

#[test]
fn a_pod_is_waited_for_until_it_has_been_ready_for_long_enough() {
    let mut world = World::new(&json!({"minReadySeconds": 10, "replicas": 2}));
    for _ in 0..3 {
        world.step();
        world.live();
    }
    let since = world.second - 1;
    let effects = world.look(true);
    assert_eq!((effects.actions.len(), effects.look_again.is_some()), (0, true));
    assert!(effects.look_again.unwrap() <= at(since + 10));
    world.second += 10;
    assert_eq!(in_words(&world.look(true)), "+1a");
    world.step();
    assert_eq!(world.set["status"]["availableReplicas"], 1);
}

#[test]
fn claims_come_before_their_pods_outlive_them_and_go_with_whom_they_are_said_to() {
    let claims = json!([{"metadata": {"name": "data", "labels": {"x": "y"}},
        "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    let mut world = World::new(&json!({"replicas": 2, "volumeClaimTemplates": claims}));
    world.settle();
    let names = |world: &World| -> Vec<String> {
        world.claims.iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&world), ["data-db-0", "data-db-1"]);
    assert_eq!(world.claims[0]["metadata"]["labels"], json!({"app": "db", "x": "y"}));
    assert!(world.claims.iter().all(|it| it["metadata"].get("ownerReferences").is_none()));
    assert_eq!(
        world.pods[1]["spec"]["volumes"],
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}])
    );
    world.set["spec"]["replicas"] = 0.into();
    world.settle();
    assert_eq!((world.pods.len(), names(&world).len()), (0, 2));
    world.set["spec"]["replicas"] = 2.into();
    world.set["spec"]["persistentVolumeClaimRetentionPolicy"] =
        json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    world.settle();
    assert_eq!(names(&world).len(), 2, "they are taken up again");
    let owner = |world: &World, at: usize| {
        world.claims[at]["metadata"]["ownerReferences"][0]["kind"].as_str().map(str::to_owned)
    };
    assert_eq!(owner(&world, 1).as_deref(), Some("StatefulSet"));
    world.set["spec"]["replicas"] = 1.into();
    world.step();
    assert_eq!(owner(&world, 1).as_deref(), Some("Pod"));
    assert!(world.pods[1]["metadata"].get("deletionTimestamp").is_none(), "first it is its own");
    world.settle();
    assert_eq!((world.pods.len(), owner(&world, 0).as_deref()), (1, Some("StatefulSet")));

    // Of one that goes, no pod is made: it would lose what it is to keep.
    world.set["spec"]["replicas"] = 2.into();
    assert_eq!(in_words(&world.look(true)), "", "it goes with the pod that was there");
    world.claims[1]["metadata"]["ownerReferences"] = json!([]);
    world.claims[1]["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    world.set["spec"]["replicas"] = 2.into();
    assert_eq!(in_words(&world.look(true)), "");
}

#[test]
fn where_claims_are_not_served_it_is_said_and_no_pod_is_made_without_them() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {}}]);
    let mut world = World::new(&json!({"volumeClaimTemplates": claims}));
    world.step();
    let effects = world.look(false);
    assert_eq!(effects.actions, []);
    assert_eq!(effects.shortfall.unwrap().reason, "ClaimsNotServed");
    assert_eq!(effects.events[0].reason, "FailedCreate");
}

#[test]
fn a_name_that_somebody_elses_pod_has_is_waited_for() {
    let mut world = World::new(&json!({}));
    world.step();
    let set: StatefulSet = serde_json::from_value(world.set.clone()).unwrap();
    let (parts, taken) = (world.parts(), ["db-0".to_owned()].into());
    let view = View::new(&set, &world.set, &parts).with_taken(&taken);
    let effects = reconcile(&view, true, at(1_000));
    assert_eq!(effects.actions, []);
    assert_eq!(effects.shortfall.unwrap().reason, "NameTaken");
    assert_eq!(effects.look_again, Some(at(1_010)));
}

#[test]
fn pods_of_other_names_are_not_taken_and_those_that_were_are_let_go() {
    let mut world = World::new(&json!({"replicas": 0}));
    world.step();
    for (name, is_owned) in [("db-01", true), ("db-x", true), ("db-1", false), ("other-0", false)] {
        let mut other = pod("1:a", &world);
        other["metadata"]["name"] = name.into();
        other["metadata"]["uid"] = name.into();
        if !is_owned {
            other["metadata"].as_object_mut().unwrap().remove("ownerReferences");
        }
        world.pods.push(other);
    }
    let effects = world.look(true);
    let did: Vec<String> = effects
        .actions
        .iter()
        .map(|effect| match effect {
            Effect::Adopt(it) => format!("adopt {}", it.name),
            Effect::Release(it) => format!("release {}", it.name),
            Effect::Change(change) => format!("label {}", change.named.name),
            Effect::Delete(it) => format!("delete {}", it.name),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(did, ["release db-01", "adopt db-1", "release db-x", "delete db-1"]);
}

proptest! {
    #[test]
    fn from_any_pods_it_comes_to_those_that_are_asked_for_and_never_makes_two_of_a_name(
        pods in proptest::collection::btree_map(0_i64..8, (0_usize..4, 0_usize..4), 0..8),
        is_parallel in any::<bool>(),
        replicas in 0_i64..5,
        start in 0_i64..3,
        partition in proptest::option::of(0_i64..4),
        most in 1_i64..4,
        retains in any::<bool>(),
        works in any::<bool>(),
    ) {
        let deletes = if retains { "Retain" } else { "Delete" };
        let mut world = World::new(&json!({"replicas": replicas, "ordinals": {"start": start},
            "podManagementPolicy": if is_parallel { "Parallel" } else { "OrderedReady" },
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deletes, "whenScaled": deletes},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}));
        let asked = world.set["spec"].clone();
        world.set["spec"]["replicas"] = 0.into();
        for image in ["x", "a", "b"] {
            world.image(image);
            world.step();
        }
        world.set["spec"]["replicas"] = asked["replicas"].clone();
        world.set["status"]["currentRevision"] = world.revision_of("a").into();
        let mut rolling = json!({"maxUnavailable": most});
        if let Some(partition) = partition {
            rolling["partition"] = partition.into();
        }
        world.set["spec"]["updateStrategy"]["rollingUpdate"] = rolling;
        let states = ["ready", "failed", "terminating", "ready,terminating"];
        for (ordinal, (image, state)) in pods {
            let image = ["x", "a", "b", "b"][image];
            world.pods.push(pod(&format!("{ordinal}:{image},{}", states[state]), &world));
        }
        world.works = works;
        // It asserts that no name is made twice, and that it comes to rest, also where no pod ever works.
        world.settle();
        if !works {
            return Ok(());
        }
        let names: Vec<String> =
            (start..start + replicas).map(|ordinal| format!("db-{ordinal}")).collect();
        let mut there: Vec<String> = world
            .pods
            .iter()
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        there.sort();
        prop_assert_eq!(there, names);
        for pod in &world.pods {
            let index = pod["metadata"]["name"].as_str().unwrap()[3..].parse::<i64>().unwrap() - start;
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
            prop_assert!(index < partition.unwrap_or(0) || image == "b", "{} is {}", index, image);
        }
        prop_assert_eq!(world.look(true).actions, vec![]);
    }
}
