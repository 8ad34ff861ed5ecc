use super::*;

#[test]
fn every_reference_leads_somewhere() {
    for (path, _) in documents() {
        let document = v3_document(path).unwrap();
        follow(&document, &document, "#/components/schemas/");
    }
    let document = v2_document();
    follow(&document, &document, "#/definitions/");
}

fn follow(value: &Value, document: &Value, root: &str) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                assert!(target.starts_with(root), "{target}");
                assert!(document.pointer(&target[1..]).is_some(), "{target} is missing");
            }
            map.values().for_each(|value| follow(value, document, root));
        }
        Value::Array(list) => list.iter().for_each(|value| follow(value, document, root)),
        _ => {}
    }
}

#[test]
fn the_index_names_every_group_version_with_a_lasting_hash() {
    let index = v3_index();
    for row in resources() {
        let path = index_path(row);
        let url = index["paths"][&path]["serverRelativeURL"].as_str().unwrap();
        let body = v3_document(&path).unwrap().to_string();
        assert_eq!(url, format!("/openapi/v3/{path}?hash={}", digest(body.as_bytes())));
        let document = v3(&path).unwrap();
        assert_eq!(Some(document.hash.as_str()), url.rsplit('=').next());
        assert_eq!(document.bytes, body.as_bytes());
    }
    assert!(v3("apis/nothing/v1").is_none());
}

/// kubectl scans the PATCH operations for the kind, then for the parameter.
#[test]
fn kubectl_finds_field_validation_for_every_kind_that_can_be_patched() {
    for row in resources().iter().filter(|row| row.verbs.contains(&crate::resource::Verb::Patch)) {
        let document = v3_document(&index_path(row)).unwrap();
        let wanted = json!({"group": row.group, "version": row.version, "kind": row.kind});
        let found = document["paths"].as_object().unwrap().values().any(|path| {
            let patch = &path["patch"];
            let parameters = patch["parameters"].as_array();
            patch["x-kubernetes-group-version-kind"] == wanted
                && parameters
                    .into_iter()
                    .flatten()
                    .any(|parameter| parameter["name"] == "fieldValidation")
        });
        assert!(found, "{wanted}");
    }
}

#[test]
fn schemas_say_how_lists_merge_and_which_kind_they_are() {
    let document = v3_document("api/v1").unwrap();
    let schemas = &document["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert!(schemas["io.k8s.api.core.v1.Volume"]["properties"]["emptyDir"].is_object());
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    assert_eq!(schemas["io.k8s.api.core.v1.PodSpec"]["required"], json!(["containers"]));
}

#[test]
fn the_smallest_v2_document_says_its_version() {
    assert_eq!(V2_PROTOBUF, [0x0a, 0x03, b'2', b'.', b'0']);
    assert!(!V2_PROTOBUF_TYPE.contains('@'));
}
