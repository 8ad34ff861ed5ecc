use super::*;
use crate::cause::Cause;
use proptest::prelude::*;
use serde_json::{Value, json};

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "cronSpec": {"type": "string"}, "replicas": {"type": "integer"}, "on": {"type": "boolean"},
                    }},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "labelSelector": {"type": "string"}}},
                }}},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.labelSelector",
                }},
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "priority": 1},
                ],
                "selectableFields": [{"jsonPath": ".spec.cronSpec"}],
            }],
        },
    })
}

fn said(causes: &[Cause]) -> Vec<String> {
    causes.iter().map(ToString::to_string).collect()
}

/// The definition with a JSON merge patch and its defaults.
fn patched(patch: &Value) -> Value {
    let mut definition = definition();
    json_patch::merge(&mut definition, patch);
    default(&mut definition);
    definition
}

#[test]
fn a_definition_says_all_that_is_known_of_its_kind() {
    let read = Definition::parse(&patched(&json!({}))).unwrap();
    assert_eq!(read.names.singular, "crontab");
    assert_eq!(read.names.list_kind, "CronTabList");
    assert!(read.namespaced);
    let version = read.storage().unwrap();
    assert!(version.served && version.has_status);
    let scale = version.scale.as_ref().unwrap();
    assert_eq!(
        (scale.spec.as_str(), scale.status.as_str()),
        ("/spec/replicas", "/status/replicas")
    );
    assert_eq!(scale.selector.as_deref(), Some("/status/labelSelector"));
    assert_eq!(
        version.selectable,
        [Selectable { label: "spec.cronSpec".into(), pointer: "/spec/cronSpec".into() }]
    );
    let mut twice = patched(&json!({}));
    default(&mut twice);
    assert_eq!(twice, patched(&json!({})));
}

#[test]
fn what_is_wrong_with_a_definition_is_said_in_the_words_of_kubernetes() {
    let version = |patch: Value| {
        let mut version = definition()["spec"]["versions"][0].clone();
        json_patch::merge(&mut version, &patch);
        json!({"spec": {"versions": [version]}})
    };
    let rows = [
        (
            json!({"metadata": {"name": "a"}}),
            "metadata.name: Invalid value: \"a\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            json!({"spec": {"scope": "All"}}),
            "spec.scope: Unsupported value: \"All\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (json!({"spec": {"scope": null}}), "spec.scope: Required value"),
        (
            json!({"spec": {"preserveUnknownFields": true}}),
            "spec.preserveUnknownFields: Invalid value: true: must be false",
        ),
        (
            json!({"spec": {"conversion": {"strategy": "Webhook"}}}),
            "spec.conversion.strategy: Unsupported value: \"Webhook\": supported values: \"None\"",
        ),
        (
            json!({"spec": {"names": {"listKind": "CronTab"}}}),
            "spec.names.listKind: Invalid value: \"CronTab\": kind and listKind may not be the same",
        ),
        (
            version(json!({"storage": false})),
            "spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version",
        ),
        (
            version(json!({"schema": null})),
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        ),
        (
            version(json!({"deprecationWarning": "x"})),
            "spec.versions[0].deprecationWarning: Invalid value: \"x\": can only be set for deprecated versions",
        ),
        (
            version(json!({"schema": {"openAPIV3Schema": {"properties": {"x": {}}}}})),
            "spec.validation.openAPIV3Schema.properties[x].type: Required value: must not be empty for specified object fields",
        ),
        (
            version(
                json!({"additionalPrinterColumns": [{"name": "a", "type": "text", "jsonPath": ".a"}]}),
            ),
            "spec.additionalPrinterColumns[0].type: Unsupported value: \"text\": supported values: \"boolean\", \"date\", \"integer\", \"number\", \"string\"",
        ),
        (
            version(
                json!({"additionalPrinterColumns": [{"name": "a", "type": "string", "jsonPath": "a"}]}),
            ),
            "spec.additionalPrinterColumns[0].jsonPath: Invalid value: \"a\": must be a simple json path starting with .",
        ),
        (
            version(json!({"subresources": {"scale": {"specReplicasPath": ".status.x"}}})),
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.x\": should be a json path under .spec",
        ),
        (
            version(json!({"subresources": {"scale": {"specReplicasPath": ".spec.x[0]"}}})),
            "spec.subresources.scale.specReplicasPath: Invalid value: \".spec.x[0]\": only json paths without the array notation are allowed",
        ),
        (
            version(json!({"selectableFields": [{"jsonPath": ".spec"}]})),
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
        ),
        (
            version(json!({"selectableFields": [{"jsonPath": ".spec.x"}]})),
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec.x\": is an invalid path: does not refer to a valid field",
        ),
        (
            version(json!({"selectableFields": [{"jsonPath": ".metadata.name"}]})),
            "spec.selectableFields[0].jsonPath: Invalid value: \".metadata.name\": must not point to fields in metadata",
        ),
        (
            json!({"metadata": {"name": "crontabs.stable.k8s.io"}, "spec": {"group": "stable.k8s.io"}}),
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ),
    ];
    for (patch, cause) in rows {
        assert_eq!(said(&validate(&patched(&patch))), [cause], "{patch}");
    }
}

#[test]
fn what_versions_do_not_say_alike_is_told_of_the_version() {
    let mut definition = patched(&json!({}));
    let mut second = definition["spec"]["versions"][0].clone();
    json_patch::merge(
        &mut second,
        &json!({"name": "v2", "storage": false, "schema": {"openAPIV3Schema": {"properties": {"x": {}}}}}),
    );
    definition["spec"]["versions"].as_array_mut().unwrap().push(second);
    assert_eq!(
        said(&validate(&definition)),
        [
            "spec.versions[1].schema.openAPIV3Schema.properties[x].type: Required value: must not be empty for specified object fields"
        ]
    );
}

#[test]
fn what_a_kind_is_called_does_not_change_once_it_is_served() {
    let old = patched(
        &json!({"status": {"conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1"]}}),
    );
    let mut new = old.clone();
    assert_eq!(validate_update(&new, &old), []);
    new["spec"]["scope"] = json!("Cluster");
    new["spec"]["names"]["kind"] = json!("Other");
    new["spec"]["names"]["listKind"] = json!("OtherList");
    new["status"]["storedVersions"] = json!(["v0"]);
    assert_eq!(
        said(&validate_update(&new, &old)),
        [
            "spec.scope: Invalid value: \"Cluster\": field is immutable",
            "spec.names.kind: Invalid value: \"Other\": field is immutable",
            "status.storedVersions[0]: Invalid value: \"v0\": must appear in spec.versions",
            "status.storedVersions: Invalid value: [\"v0\"]: must have the storage version v1",
        ]
    );
}

#[test]
fn columns_show_what_their_paths_come_to() {
    let read = Definition::parse(&patched(&json!({}))).unwrap();
    let columns = &read.versions[0].columns;
    let object = json!({
        "metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"cronSpec": "* * * * *"},
        "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
    });
    let now = "2024-01-01T01:00:00Z".parse().unwrap();
    assert_eq!(
        cells(columns, &object, now),
        [json!("a"), json!("* * * * *"), json!("True"), json!("60m")]
    );
    let empty = json!({"metadata": {"name": "b"}});
    assert_eq!(cells(columns, &empty, now), [json!("b"), Value::Null, Value::Null, Value::Null]);
}

#[test]
fn what_is_served_is_what_was_accepted() {
    let asked = patched(&json!({}));
    assert!(row(&asked).unwrap().is_none(), "nothing is accepted yet");
    let mut accepted = asked.clone();
    begin(&mut accepted);
    assert_eq!(accepted["metadata"]["finalizers"], json!([FINALIZER]));
    assert_eq!(accepted["status"]["storedVersions"], json!(["v1"]));
    assert!(row(&accepted).unwrap().is_none(), "nor is it when it is begun");
    accepted["status"]["acceptedNames"] = asked["spec"]["names"].clone();
    accepted["spec"]["names"]["shortNames"] = json!(["po"]);
    let row = row(&accepted).unwrap().unwrap();
    assert_eq!((&*row.group, &*row.version, &*row.kind), ("stable.example.com", "v1", "CronTab"));
    assert_eq!(row.short_names, ["ct"], "another is not accepted yet");
    assert_eq!(row.definition.as_ref().unwrap().name, "crontabs.stable.example.com");
    let columns: Vec<_> = row.columns.iter().map(|c| (&*c.name, &*c.kind, c.priority)).collect();
    assert_eq!(
        columns,
        [("Name", "string", 0), ("Spec", "string", 0), ("Ready", "string", 0), ("Age", "date", 1)]
    );
    let doors: Vec<_> = row.subresources.iter().map(|sub| sub.name).collect();
    assert_eq!(doors, ["status", "scale"]);
    assert!(row.field("spec.cronSpec").is_some());
    let object = json!({"metadata": {"name": "a"}, "status": {"labelSelector": "app=a"}});
    let scaled = crate::admission::apply_scale(&row, &object, &json!({"spec": {"replicas": 3}}));
    let scaled = scaled.unwrap();
    assert_eq!(scaled["spec"]["replicas"], 3, "the spec is made");
    let scale = crate::admission::scale_of(&row, &scaled).unwrap();
    assert_eq!(scale["spec"]["replicas"], 3);
    assert_eq!(scale["status"]["selector"], "app=a");
}

#[test]
fn what_cannot_be_served_yet_is_refused_by_name() {
    let first = definition()["spec"]["versions"][0].clone();
    let versions = |second: &Value| {
        let mut other = first.clone();
        json_patch::merge(&mut other, &json!({"name": "v2", "storage": false}));
        json_patch::merge(&mut other, second);
        json!({"spec": {"versions": [first, other]}})
    };
    let renamed = |group: &str| json!({"metadata": {"name": format!("crontabs.{group}")}, "spec": {"group": group}});
    let mut unserved = versions(&json!({"served": true}));
    unserved["spec"]["versions"][0]["served"] = json!(false);
    for (patch, why) in [
        (
            versions(&json!({})),
            "spec.versions: Invalid value: [\"v1\",\"v2\"]: several served versions are not supported yet: serve the storage version alone",
        ),
        (
            unserved,
            "spec.versions: Invalid value: \"v2\": serving another version than the storage version is not supported yet: objects are not converted",
        ),
        (
            json!({"spec": {"names": {"listKind": "CronTabs"}}}),
            "spec.names.listKind: Invalid value: \"CronTabs\": another than CronTabList is not supported yet",
        ),
        (
            renamed("impresario.dev"),
            "spec.group: Invalid value: \"impresario.dev\": belongs to Impresario itself: use a group of your own",
        ),
        (
            renamed("x.impresario.dev"),
            "spec.group: Invalid value: \"x.impresario.dev\": belongs to Impresario itself: use a group of your own",
        ),
    ] {
        assert_eq!(said(&validate(&patched(&patch))), [why]);
    }
    assert_eq!(validate(&patched(&versions(&json!({"served": false})))), []);
}

#[test]
fn a_path_finds_what_it_says_and_says_what_it_cannot_find() {
    let object = json!({
        "a": {"b.c": 1, "list": [{"n": 1, "t": "x"}, {"n": 2, "t": "y"}], "map": {"k": true}}, "z": [1, 2, 3],
    });
    let rows = [
        (r".a.b\.c", json!([1])),
        (".a['b.c']", json!([1])),
        (".z[1]", json!([2])),
        (".z[-1]", json!([3])),
        (".z[*]", json!([1, 2, 3])),
        (".a.map.*", json!([true])),
        (".a.list[?(@.t==\"y\")].n", json!([2])),
        (".a.list[?(@.n>1)].t", json!(["y"])),
        (".a.list[?(@.n<=1)].t", json!(["x"])),
        (".a.list[?(@.t!='x')].n", json!([2])),
        (".a.list[?(@.t)].n", json!([1, 2])),
        (".nothing.at.all", json!([])),
        (".z.x", json!([])),
    ];
    for (path, found) in rows {
        let parsed = JsonPath::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(json!(parsed.find(&object)), found, "{path}");
    }
    for path in ["a", "", ".a..b", ".a[", ".a[1:2]", ".a[?(x)]", ".{a}", ".a.", ".a[?(@.b==c)]"] {
        assert!(JsonPath::parse(path).is_err(), "{path}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_path_panic(text in r#"[.a\[\]*?(@='"\\:0-9-]{0,12}"#) {
        if let Ok(path) = JsonPath::parse(&format!(".{text}")) {
            path.find(&json!({"a": [{"a": 1}]}));
        }
    }
}

#[test]
fn all_versions_of_a_definition_have_one_room_for_their_patterns() {
    let version = |name: &str, storage: bool, from: usize| {
        let fields: serde_json::Map<String, Value> = (from..from + 50)
            .map(|at| {
                (format!("f{at}"), json!({"type": "string", "pattern": format!("\\pL{{5}}{at}")}))
            })
            .collect();
        json!({"name": name, "served": storage, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": fields}}})
    };
    let found = |from: usize| {
        let mut definition = definition();
        definition["spec"]["versions"] =
            json!([version("v1", true, 0), version("v2", false, from)]);
        default(&mut definition);
        said(&validate(&definition))
    };
    assert_eq!(found(0), [""; 0], "the same patterns are compiled once");
    let found = found(50);
    assert!(!found.is_empty());
    assert!(
        found.iter().all(|why| why.contains("together with the other patterns")),
        "{}",
        found[0]
    );
}
