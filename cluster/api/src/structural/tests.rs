use super::Structural;
use crate::cause::Cause;
use serde_json::{Value, json};

fn schema(spec: Value) -> Structural {
    let root = json!({"type": "object", "properties": {"spec": spec}});
    Structural::parse(&root).unwrap_or_else(|causes| panic!("{causes:?}"))
}

fn said(causes: &[Cause]) -> Vec<String> {
    causes.iter().map(ToString::to_string).collect()
}

/// What is wrong with a spec.
fn wrong(structural: &Structural, spec: Value) -> Vec<String> {
    said(&structural.validate(&json!({"spec": spec}), None))
}

#[test]
fn what_is_not_structural_is_refused_in_the_words_of_kubernetes() {
    let at = "spec.validation.openAPIV3Schema";
    let x = |property: Value| json!({"type": "object", "properties": {"x": property}});
    let rows = [
        (json!({}), ".type: Required value: must not be empty at the root"),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            ".type: Invalid value: \"array\": must be object at the root",
        ),
        (
            x(json!({})),
            ".properties[x].type: Required value: must not be empty for specified object fields",
        ),
        (
            x(json!({"type": "array", "items": {}})),
            ".properties[x].items.type: Required value: must not be empty for specified array items",
        ),
        (x(json!({"type": "array"})), ".properties[x].items: Required value: must be specified"),
        (
            x(json!({"type": "strin"})),
            ".properties[x].type: Unsupported value: \"strin\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (x(json!({"$ref": "#/a"})), ".properties[x].$ref: Forbidden: $ref is not supported"),
        (
            x(json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true})),
            ".properties[x].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            x(
                json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            ),
            ".properties[x].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            x(json!({"type": "object", "additionalProperties": false})),
            ".properties[x].additionalProperties: Forbidden: additionalProperties cannot be set to false",
        ),
        (
            x(json!({"type": "string", "anyOf": [{"type": "string"}]})),
            ".properties[x].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            x(json!({"type": "object", "not": {"properties": {"a": {"minimum": 1}}}})),
            ".properties[x].properties[a]: Required value: because it is defined in spec.validation.openAPIV3Schema.properties[x].not.properties[a]",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            ".properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ),
        (
            x(json!({"type": "string", "x-kubernetes-list-type": "set"})),
            ".properties[x].type: Invalid value: \"string\": must be array if x-kubernetes-list-type is specified",
        ),
        (
            x(
                json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
            ),
            ".properties[x].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            x(
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"], "items": {"type": "object"}}),
            ),
            ".properties[x].x-kubernetes-list-map-keys: Invalid value: [\"n\"]: entries must all be names of item properties",
        ),
        (
            x(
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"], "items": {"type": "object", "properties": {"n": {"type": "string"}}}}),
            ),
            ".properties[x].items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
        (
            x(json!({"type": "object", "x-kubernetes-embedded-resource": true})),
            ".properties[x].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ),
        (
            x(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false})),
            ".properties[x].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
        (
            x(
                json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}}),
            ),
            ".properties[x].default: Invalid value: {\"b\":1}: must not have unknown fields",
        ),
        (
            x(json!({"type": "integer", "default": "a"})),
            ".properties[x].default: Invalid value: \"string\": spec.validation.openAPIV3Schema.properties[x].default in body must be of type integer: \"string\"",
        ),
        (
            x(json!({"type": "string", "x-kubernetes-validations": [{"message": "m"}]})),
            ".properties[x].x-kubernetes-validations[0].rule: Required value: rule is not specified",
        ),
    ];
    for (schema, cause) in rows {
        let causes = Structural::parse(&schema).map(|_| ()).unwrap_err();
        assert_eq!(said(&causes), [format!("{at}{cause}")], "{schema}");
    }
}

#[test]
fn a_pattern_that_is_none_is_refused_where_it_stands() {
    let schema = json!({"type": "object", "properties": {"x": {"type": "string", "pattern": "("}}});
    let causes = Structural::parse_at(&schema, "spec.versions[1].schema.openAPIV3Schema");
    let causes = said(&causes.unwrap_err());
    let begin = "spec.versions[1].schema.openAPIV3Schema.properties[x].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: ";
    assert!(causes[0].starts_with(begin), "{causes:?}");
}

#[test]
fn what_is_wrong_with_a_value_is_said_in_the_words_of_kubernetes() {
    let s = schema(json!({
        "type": "object", "required": ["name"], "maxProperties": 12, "minProperties": 1,
        "properties": {
            "name": {"type": "string", "maxLength": 3, "minLength": 2, "pattern": "^[a-z]+$"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "multipleOf": 2},
            "ratio": {"type": "number", "minimum": 0, "exclusiveMinimum": true, "maximum": 1, "exclusiveMaximum": true},
            "mode": {"type": "string", "enum": ["b", "c"]},
            "at": {"type": "string", "format": "date-time"},
            "small": {"type": "integer", "format": "int32"},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "maxItems": 3, "minItems": 1, "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 5}}}},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "maybe": {"type": "string", "nullable": true},
            "choice": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        },
    }));
    let rows: Vec<(Value, &[&str])> = vec![
        (
            json!({}),
            &[
                "spec.name: Required value",
                "spec: Invalid value: {}: spec in body should have at least 1 properties",
            ],
        ),
        (
            json!("x"),
            &["spec: Invalid value: \"string\": spec in body must be of type object: \"string\""],
        ),
        (
            json!({"name": "éé"}),
            &["spec.name: Invalid value: \"éé\": spec.name in body should match '^[a-z]+$'"],
        ),
        (json!({"name": "abcd"}), &["spec.name: Too long: may not be more than 3 bytes"]),
        (
            json!({"name": "a"}),
            &["spec.name: Invalid value: \"a\": spec.name in body should be at least 2 chars long"],
        ),
        (
            json!({"name": 1}),
            &[
                "spec.name: Invalid value: \"integer\": spec.name in body must be of type string: \"integer\"",
            ],
        ),
        (
            json!({"name": "ab", "replicas": 12}),
            &[
                "spec.replicas: Invalid value: 12: spec.replicas in body should be less than or equal to 10",
            ],
        ),
        (
            json!({"name": "ab", "replicas": 0}),
            &[
                "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1",
            ],
        ),
        (
            json!({"name": "ab", "replicas": 3}),
            &["spec.replicas: Invalid value: 3: spec.replicas in body should be a multiple of 2"],
        ),
        (
            json!({"name": "ab", "replicas": 2.5}),
            &[
                "spec.replicas: Invalid value: \"number\": spec.replicas in body must be of type integer: \"number\"",
            ],
        ),
        (json!({"name": "ab", "replicas": 2.0}), &[]),
        (
            json!({"name": "ab", "ratio": 0}),
            &["spec.ratio: Invalid value: 0: spec.ratio in body should be greater than 0"],
        ),
        (
            json!({"name": "ab", "ratio": 1.0}),
            &["spec.ratio: Invalid value: 1.0: spec.ratio in body should be less than 1"],
        ),
        (
            json!({"name": "ab", "mode": "a"}),
            &["spec.mode: Unsupported value: \"a\": supported values: \"b\", \"c\""],
        ),
        (
            json!({"name": "ab", "at": "now"}),
            &[
                "spec.at: Invalid value: \"now\": spec.at in body must be of type date-time: \"now\"",
            ],
        ),
        (
            json!({"name": "ab", "small": 3_000_000_000_i64}),
            &[
                "spec.small: Invalid value: 3000000000: Checked value must be of type integer with format int32 (overflow)",
            ],
        ),
        (json!({"name": "ab", "set": ["a", "b", "a"]}), &["spec.set[2]: Duplicate value: \"a\""]),
        (
            json!({"name": "ab", "set": []}),
            &["spec.set: Invalid value: 0: spec.set in body should have at least 1 items"],
        ),
        (
            json!({"name": "ab", "set": ["a", "b", "c", "d"]}),
            &["spec.set: Too many: 4: must have at most 3 items"],
        ),
        (
            json!({"name": "ab", "map": [{"k": "a"}, {"k": "a", "v": 1}]}),
            &["spec.map[1]: Duplicate value: {\"k\":\"a\"}"],
        ),
        (json!({"name": "ab", "map": [{}]}), &["spec.map[0].k: Required value"]),
        (
            json!({"name": "ab", "port": true}),
            &[
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
            ],
        ),
        (json!({"name": "ab", "port": "http"}), &[]),
        (
            json!({"name": "ab", "labels": {"a": 1}}),
            &[
                "spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\"",
            ],
        ),
        (json!({"name": "ab", "maybe": null}), &[]),
        (
            json!({"name": "ab", "mode": null}),
            &[
                "spec.mode: Invalid value: \"null\": spec.mode in body must be of type string: \"null\"",
                "spec.mode: Unsupported value: null: supported values: \"b\", \"c\"",
            ],
        ),
        (
            json!({"name": "ab", "choice": {}}),
            &[
                "<nil>: Invalid value: \"\": \"spec.choice\" must validate one and only one schema (oneOf). Found none valid",
                "spec.choice.a: Required value",
            ],
        ),
        (
            json!({"name": "ab", "choice": {"a": "", "b": ""}}),
            &[
                "<nil>: Invalid value: \"\": \"spec.choice\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        ),
    ];
    for (spec, causes) in rows {
        let found = wrong(&s, spec.clone());
        let expected: &[&str] =
            if spec.get("mode") == Some(&Value::Null) { &causes[..1] } else { causes };
        let mut found: Vec<&str> = found.iter().map(String::as_str).collect();
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{spec}");
    }
}

#[test]
fn alternatives_are_judged_together() {
    let s = schema(json!({
        "type": "object", "properties": {"n": {"type": "integer"}},
        "allOf": [{"properties": {"n": {"minimum": 1}}}],
        "anyOf": [{"properties": {"n": {"maximum": 5}}}, {"properties": {"n": {"multipleOf": 10}}}],
        "not": {"properties": {"n": {"enum": [3]}}, "required": ["n"]},
    }));
    let rows: Vec<(i64, &[&str])> = vec![
        (2, &[]),
        (20, &[]),
        (
            0,
            &[
                "spec.n: Invalid value: 0: spec.n in body should be greater than or equal to 1",
                "<nil>: Invalid value: \"\": \"spec\" must validate all the schemas (allOf)",
            ],
        ),
        (
            7,
            &[
                "<nil>: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)",
                "spec.n: Invalid value: 7: spec.n in body should be less than or equal to 5",
            ],
        ),
        (3, &["<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)"]),
    ];
    for (n, causes) in rows {
        assert_eq!(wrong(&s, json!({"n": n})), causes, "{n}");
    }
}

#[test]
fn what_is_unknown_is_dropped_unless_the_schema_keeps_it() {
    let s = schema(json!({
        "type": "object",
        "properties": {
            "a": {"type": "object", "properties": {"b": {"type": "string"}}},
            "kept": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"c": {"type": "object", "properties": {"d": {"type": "string"}}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"e": {"type": "string"}}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"f": {"type": "string"}}}},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        },
    }));
    let mut object = json!({
        "apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a", "labels": {"x": "y"}}, "more": 1,
        "spec": {
            "a": {"b": "", "x": 1}, "x": 1,
            "kept": {"x": {"y": 1}, "c": {"d": "", "x": 1}},
            "map": {"k": {"e": "", "x": 1}},
            "list": [{"f": "", "x": 1}, 5],
            "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "x": 1}, "spec": {"x": 1}, "x": 1},
        },
    });
    s.prune(&mut object);
    assert_eq!(
        object,
        json!({
            "apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {
                "a": {"b": ""},
                "kept": {"x": {"y": 1}, "c": {"d": ""}},
                "map": {"k": {"e": ""}},
                "list": [{"f": ""}, 5],
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}},
            },
        })
    );
}

#[test]
fn an_object_inside_an_object_says_what_it_is() {
    let s = schema(
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
    );
    let rows: Vec<(Value, &[&str])> = vec![
        (json!({"apiVersion": "v1", "kind": "Pod"}), &[]),
        (
            json!({}),
            &[
                "spec.apiVersion: Required value: must not be empty",
                "spec.kind: Required value: must not be empty",
            ],
        ),
        (
            json!({"apiVersion": "a/b/c", "kind": "Pod"}),
            &["spec.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"],
        ),
    ];
    for (spec, causes) in rows {
        assert_eq!(wrong(&s, spec.clone()), causes, "{spec}");
    }
}

#[test]
fn defaults_fill_in_what_is_missing_or_null_where_null_says_nothing() {
    let s = schema(json!({
        "type": "object", "default": {},
        "properties": {
            "a": {"type": "string", "default": "x"},
            "n": {"type": "string", "default": "x", "nullable": true},
            "o": {"type": "string"},
            "deep": {"type": "object", "default": {}, "properties": {"b": {"type": "integer", "default": 1}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "integer", "default": 2}}}},
            "map": {"type": "object", "additionalProperties": {"type": "integer", "default": 3}},
        },
    }));
    let rows = [
        (json!({}), json!({"spec": {"a": "x", "n": "x", "deep": {"b": 1}}})),
        (
            json!({"spec": {"a": null, "n": null, "o": null, "deep": {"b": 5}, "list": [{}], "map": {"k": null}}}),
            json!({"spec": {"a": "x", "n": null, "deep": {"b": 5}, "list": [{"c": 2}], "map": {"k": 3}}}),
        ),
    ];
    for (mut object, expected) in rows {
        s.default(&mut object);
        assert_eq!(object, expected);
    }
}

#[test]
fn what_was_wrong_before_is_left_alone_until_it_is_changed() {
    let s = schema(json!({
        "type": "object", "required": ["must"],
        "properties": {
            "must": {"type": "string"}, "n": {"type": "integer", "maximum": 5}, "free": {"type": "string"},
            "atoms": {"type": "array", "items": {"type": "integer", "maximum": 5}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 5}}}},
        },
    }));
    let old = json!({"spec": {"must": "", "n": 9, "free": "a", "atoms": [9], "map": [{"k": "a", "v": 9}, {"k": "b", "v": 9}]}});
    let rows: Vec<(&str, Value, usize)> = vec![
        ("/spec/free", json!("b"), 0),
        ("/spec/n", json!(9.0), 0),
        ("/spec/n", json!(8), 1),
        ("/spec/atoms", json!([9, 1]), 1),
        ("/spec/map", json!([{"k": "b", "v": 9}, {"k": "a", "v": 9}]), 0),
        ("/spec/map", json!([{"k": "c", "v": 9}, {"k": "a", "v": 9}]), 1),
    ];
    for (pointer, value, causes) in rows {
        let mut new = old.clone();
        *new.pointer_mut(pointer).unwrap() = value;
        assert_eq!(s.validate(&new, Some(&old)).len(), causes, "{new}");
        assert!(s.validate(&new, None).len() > causes, "it is wrong on its own: {new}");
    }
}

#[test]
fn a_schema_that_is_too_deep_or_too_large_is_refused() {
    let mut deep = json!({"type": "string"});
    for _ in 0..60 {
        deep = json!({"type": "object", "properties": {"a": deep}});
    }
    assert!(Structural::parse(&deep).is_ok());
    for _ in 0..10 {
        deep = json!({"type": "object", "properties": {"a": deep}});
    }
    assert_eq!(Structural::parse(&deep).unwrap_err().len(), 1);
    let many: serde_json::Map<String, Value> =
        (0..=super::read::MAX_NODES).map(|n| (n.to_string(), json!({"type": "string"}))).collect();
    assert_eq!(
        Structural::parse(&json!({"type": "object", "properties": many})).unwrap_err().len(),
        1
    );
}

#[test]
fn looking_at_an_object_ends_when_the_work_allowed_is_done() {
    let alternatives: Vec<Value> = (0..50).map(|n| json!({"minimum": n + 1})).collect();
    let items = json!({"type": "integer", "not": {"anyOf": alternatives}});
    let s = schema(json!({"type": "array", "items": items}));
    let object = json!({"spec": vec![0; 1000]});
    assert_eq!(s.validate(&object, None), []);
    let found = said(&s.validate_within(10_000, &object, None));
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("takes too long"), "{found:?}");
}

#[test]
fn no_more_is_told_than_anybody_reads() {
    let s = schema(json!({"type": "array", "items": {"type": "integer", "minimum": 1}}));
    assert_eq!(wrong(&s, json!(vec![0; 10_000])).len(), crate::field::MAX_CAUSES);
}

#[test]
fn clients_are_shown_the_schema_with_what_every_object_has() {
    let s = schema(json!({
        "type": "object",
        "properties": {
            "maybe": {"type": "string", "nullable": true},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "a": {"type": "string", "description": "a"},
        },
    }));
    let (v3, v2) = (s.openapi(), s.openapi_v2());
    let metadata = "/properties/metadata/allOf/0/$ref";
    let name = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    assert_eq!(v3.pointer(metadata), Some(&json!(format!("#/components/schemas/{name}"))));
    assert_eq!(v2.pointer(metadata), Some(&json!(format!("#/definitions/{name}"))));
    assert_eq!(v3["properties"]["kind"]["type"], "string");
    assert_eq!(v3["properties"]["spec"], s.document["properties"]["spec"]);
    let spec = &v2["properties"]["spec"]["properties"];
    assert_eq!(spec["maybe"], json!({}));
    assert_eq!(spec["port"], json!({"x-kubernetes-int-or-string": true}));
    assert_eq!(spec["a"], json!({"type": "string", "description": "a"}));
}
