use super::super::table::{cells, part};
use super::*;
use serde_json::json;

fn volume(words: &str) -> Value {
    let is = |word: &str| words.split(' ').any(|one| one == word);
    let mut volume = json!({"metadata": {"name": "v", "uid": "v",
            "finalizers": [VOLUME_PROTECTION]},
        "spec": {"capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Retain",
            "csi": {"driver": if is("other") { "else.example" } else { LOCAL_DRIVER }, "volumeHandle": "v"}},
        "status": {"phase": "Pending"}});
    for policy in ["Delete", "Recycle"] {
        if is(policy) {
            volume["spec"]["persistentVolumeReclaimPolicy"] = policy.into();
        }
    }
    if is("path") {
        volume["spec"]["csi"].take();
        volume["spec"]["hostPath"] = json!({"path": "/x"});
    }
    if is("kept") || is("its") {
        volume["spec"]["claimRef"] = json!({"namespace": "ns", "name": "c"});
    }
    if is("its") {
        volume["spec"]["claimRef"]["uid"] = "c".into();
    }
    if is("marked") {
        volume["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
    }
    if is("going") {
        volume["metadata"]["deletionTimestamp"] = "2026-03-01T00:00:00Z".into();
    }
    for phase in ["Available", "Bound", "Released"] {
        if is(phase) {
            volume["status"]["phase"] = phase.into();
        }
    }
    volume
}

fn looked(volume: &Value, claims: &[Value]) -> Effects {
    let typed: PersistentVolume = serde_json::from_value(volume.clone()).unwrap();
    let parts = [part::<PersistentVolumeClaim>(claims)];
    let now = "2026-03-01T00:00:01Z".parse().unwrap();
    Reconciler::reconcile(&View::new(&typed, volume, &parts).at(5), now)
}

fn claim(uid: &str, names: &str) -> Vec<Value> {
    if uid.is_empty() {
        return Vec::new();
    }
    vec![json!({"metadata": {"name": "c", "namespace": "ns", "uid": uid},
        "spec": {"volumeName": names}})]
}

fn said(effects: &Effects) -> (String, String) {
    let phase = match &effects.status {
        Some(Ok(status)) => status["phase"].as_str().unwrap_or_default().to_owned(),
        _ => "-".to_owned(),
    };
    let mut does = Vec::new();
    if effects.delete_itself {
        does.push("deletes");
    }
    if effects.unheld.is_some() {
        does.push("lets go");
    }
    if effects.itself.is_some() {
        does.push("gives back");
    }
    (phase, does.join(" "))
}

#[test]
fn a_volume_is_what_its_claim_makes_of_it_and_goes_as_its_policy_says() {
    let table = "
        free                       |      |   | Available |
        kept                       |      |   | Available |
        kept                       | c    | v | Available |
        its                        | c    |   | Pending   |
        its Available              | c    |   | Available |
        its                        | c    | v | Bound     |
        its Delete                 | c    | v | Bound     |
        its marked path            | c    | w | Available | gives back
        its Delete                 | c    | w | Released  |
        its Bound                  |      |   | Released  |
        its Bound                  | d    | v | Released  |
        its Released               |      |   | Released  |
        its Delete Bound           |      |   | Released  |
        its Delete Released        |      |   | Released  | deletes
        its Delete Released other  |      |   | Released  |
        its Delete Bound path      |      |   | Failed    |
        its Recycle Bound path     |      |   | Failed    |
        its Bound going            | c    | v | Bound     |
        its Delete Released going  |      |   | Released  | lets go
        free Available going       |      |   | Available | lets go
        its going                  | c    |   | Released  | lets go
        its going                  | c    | v | Bound     |
        its Available going        | c    | v | Bound     |
    ";
    for row in table.trim().lines() {
        let [words, uid, names, phase, does] = cells(row);
        let effects = looked(&volume(words), &claim(uid, names));
        assert_eq!(said(&effects), (phase.to_owned(), does.to_owned()), "{row}");
    }
}

#[test]
fn a_claim_that_is_not_shown_yet_is_not_taken_for_one_that_is_gone() {
    let stored = volume("its Delete Released");
    let typed: PersistentVolume = serde_json::from_value(stored.clone()).unwrap();
    let now = "2026-03-01T00:00:01Z".parse().unwrap();
    let look = |shown: u64| {
        let parts = [part::<PersistentVolumeClaim>(&[]).complete(shown)];
        Reconciler::reconcile(&View::new(&typed, &stored, &parts).at(5), now)
    };
    let behind = look(4);
    assert!(!behind.delete_itself && behind.status.is_none() && behind.look_again.is_some());
    assert!(look(5).delete_itself);
}

#[test]
fn who_set_a_volume_aside_for_a_name_finds_it_so_again() {
    let kept = given_back(&serde_json::from_value(volume("its")).unwrap());
    assert_eq!(kept, json!({"spec": {"claimRef": {"uid": null}}}));
    let chosen = given_back(&serde_json::from_value(volume("its marked")).unwrap());
    assert_eq!(chosen["spec"]["claimRef"], Value::Null);
}

#[test]
fn why_a_volume_cannot_be_reclaimed_is_said_once() {
    let effects = looked(&volume("its Recycle Bound path"), &[]);
    assert_eq!(effects.events[0].reason, "VolumeFailedDelete");
    let status = effects.status.unwrap().unwrap();
    assert!(status["message"].as_str().unwrap().contains("Recycle"));
    let mut failed = volume("its Recycle path");
    failed["status"] = status;
    assert!(looked(&failed, &[]).events.is_empty());
}
