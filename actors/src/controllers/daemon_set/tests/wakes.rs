//! Which daemon sets look when a node changes.

use super::super::super::engine::mirrors::Mirrors;
use super::super::super::engine::sources::Concerned;
use super::super::*;
use crate::testing::LIMIT;
use impresario_registry::{MemoryRegistry, Registry as _};
use impresario_registry_api::{Key, Transaction};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

#[tokio::test(start_paused = true)]
async fn a_node_wakes_those_daemon_sets_to_which_it_matters_and_none_all_the_time() {
    let registry = MemoryRegistry::default();
    let mirrors = Mirrors::over(Arc::new(registry.clone()));
    let (nodes, sets) = (mirrors.of::<Node>(), mirrors.of::<DaemonSet>());
    let put = async |resource: &str, object: Value| {
        let key = Key::new(resource, "", object["metadata"]["name"].as_str().unwrap());
        let put = Transaction::default().put(key, object.to_string());
        registry.transact(put).await.unwrap().revision
    };
    for (name, selector) in [("any", json!({})), ("picky", json!({"disk": "ssd"}))] {
        let set = json!({"metadata": {"name": name, "uid": name}, "spec": {"selector": {},
            "template": {"spec": {"containers": [], "nodeSelector": selector}}}});
        let made = put("apps/daemonsets", set).await;
        sets.reached(made, LIMIT).await.unwrap();
    }
    let becomes = async |labels: Value, spec: Value| {
        let node = json!({"metadata": {"name": "n", "labels": labels}, "spec": spec});
        let revision = put("nodes", node).await;
        nodes.reached(revision, LIMIT).await.unwrap();
    };
    becomes(json!({}), json!({})).await;
    let all = Reconciler::looks_at().sources(&mirrors);
    let source = all.iter().find(|source| source.name().starts_with("nodes")).unwrap();
    let (told, mut hints) = mpsc::channel(512);
    let _following = JoinSet::from_iter([source.run(told)]);
    let of = |uids: &[&str]| Concerned::Uids(uids.iter().map(|&uid| uid.to_owned()).collect());
    let minute = std::time::Duration::from_mins(1);

    // A label that no set names, whatever it says.
    for number in 0..100 {
        becomes(json!({"mood": number.to_string()}), json!({})).await;
    }
    tokio::time::sleep(minute).await;
    assert!(hints.try_recv().is_err(), "it matters to nobody");

    let now = tokio::time::Instant::now();
    becomes(json!({"disk": "ssd"}), json!({})).await;
    assert_eq!(hints.recv().await, Some(of(&["picky"])));
    assert!(now.elapsed() < minute / 60, "after {:?}", now.elapsed());
    // Now this and now that, within a moment, is what it comes to in the end.
    for number in 0..101 {
        let labels = if number % 2 == 0 { json!({}) } else { json!({"disk": "ssd"}) };
        becomes(labels, json!({})).await;
    }
    tokio::time::sleep(minute).await;
    assert_eq!(hints.try_recv(), Ok(of(&["picky"])));
    assert!(hints.try_recv().is_err(), "it is told once");

    for spec in [
        json!({"unschedulable": true}),
        json!({"taints": [{"key": "mine", "effect": "NoSchedule"}]}),
        json!({"taints": [{"key": "mine", "effect": "NoExecute"}]}),
        json!({}),
    ] {
        becomes(json!({}), spec.clone()).await;
        tokio::time::sleep(minute).await;
        assert_eq!(hints.try_recv(), Ok(of(&["any"])), "{spec}");
    }
    let gone = Transaction::default().delete(Key::new("nodes", "", "n"));
    registry.transact(gone).await.unwrap();
    assert_eq!(hints.recv().await, Some(of(&["any"])));
}
