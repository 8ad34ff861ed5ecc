//! What the doors of a daemon set let through.

use crate::{create, update};
use impresario_api::admission::Door;
use impresario_api::kinds::daemonsets::TEMPLATE_GENERATION;
use serde_json::json;

#[test]
fn nobody_but_the_server_says_how_often_the_template_was_changed() {
    let (resource, mut old) = create(&json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    }));
    for door in [Door::Main, Door::Status] {
        let mut new = old.clone();
        new["metadata"]["annotations"][TEMPLATE_GENERATION] = "not a label!".into();
        new["metadata"]["annotations"]["note"] = "seen".into();
        let new = update(&resource, door, new, &old).expect("a valid change");
        let annotations = json!({TEMPLATE_GENERATION: "1", "note": "seen"});
        assert_eq!(new["metadata"]["annotations"], annotations);
    }
    let mut new = old.clone();
    new["metadata"].as_object_mut().expect("metadata").remove("annotations");
    let kept = update(&resource, Door::Status, new, &old).expect("a valid status");
    assert_eq!(kept["metadata"]["annotations"], json!({TEMPLATE_GENERATION: "1"}));
    // One that has none gets none.
    old["metadata"].as_object_mut().expect("metadata").remove("annotations");
    let mut new = old.clone();
    new["metadata"]["annotations"] = json!({TEMPLATE_GENERATION: "7", "note": "seen"});
    let kept = update(&resource, Door::Status, new, &old).expect("a valid status");
    assert_eq!(kept["metadata"]["annotations"], json!({"note": "seen"}));
}
