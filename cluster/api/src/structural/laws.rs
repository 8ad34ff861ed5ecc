//! What holds for every schema and every object.

use super::Structural;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Any JSON value.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-10_i64..10).prop_map(Value::from),
        (-10.0_f64..10.0).prop_map(Value::from),
        "[a-e]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-e]", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A word that schemas know, so that arbitrary JSON comes near to one.
fn keyword() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "type",
        "properties",
        "items",
        "additionalProperties",
        "default",
        "nullable",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "required",
        "enum",
        "pattern",
        "format",
        "minimum",
        "maxLength",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
        "rule",
        "metadata",
        "spec",
    ])
    .prop_map(str::to_owned)
}

fn near_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        json_value(),
        prop::sample::select(vec![
            "object",
            "array",
            "string",
            "set",
            "map",
            "a",
            "self == 1",
            "^a("
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keyword(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A schema that is structural, with a default wherever there is luck.
fn good_schema() -> impl Strategy<Value = Value> {
    let with = |mut schema: Value, default: Option<Value>, nullable: bool| {
        if let Some(default) = default {
            schema["default"] = default;
        }
        if nullable {
            schema["nullable"] = json!(true);
        }
        schema
    };
    let leaf = prop_oneof![
        (any::<Option<bool>>(), any::<bool>()).prop_map(move |(d, n)| with(
            json!({"type": "boolean"}),
            d.map(Value::from),
            n
        )),
        (prop::option::of(-3_i64..3), any::<bool>()).prop_map(move |(d, n)| with(
            json!({"type": "integer", "minimum": -3}),
            d.map(Value::from),
            n
        )),
        (prop::option::of("[a-c]{1,2}"), any::<bool>()).prop_map(move |(d, n)| with(
            json!({"type": "string", "minLength": 1}),
            d.map(Value::from),
            n
        )),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        Just(json!({"x-kubernetes-int-or-string": true})),
    ];
    leaf.prop_recursive(3, 32, 4, move |inner| {
        prop_oneof![
            inner.clone().prop_map(|items| json!({"type": "array", "items": items})),
            inner.clone().prop_map(|of| json!({"type": "object", "additionalProperties": of})),
            (prop::collection::btree_map("[a-e]", inner, 0..4), any::<bool>(), any::<bool>())
                .prop_map(|(properties, keeps, default)| {
                    let mut schema = json!({"type": "object", "properties": properties});
                    if keeps {
                        schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
                    }
                    if default {
                        schema["default"] = json!({});
                    }
                    schema
                }),
        ]
    })
}

fn parsed(spec: &Value) -> Structural {
    let root = json!({"type": "object", "properties": {"spec": spec}});
    match Structural::parse(&root) {
        Ok(structural) => structural,
        Err(causes) => panic!("{spec}: {causes:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_json_makes_the_reader_of_schemas_or_what_it_gives_panic(schema in near_schema(), object in json_value()) {
        let root = json!({"type": "object", "properties": {"spec": schema}});
        for schema in [&schema, &root] {
            if let Ok(structural) = Structural::parse(schema) {
                let mut object = object.clone();
                structural.prune(&mut object);
                structural.default(&mut object);
                structural.validate(&object, None);
            }
        }
    }

    #[test]
    fn pruning_and_defaulting_twice_is_doing_so_once(schema in good_schema(), value in json_value()) {
        let structural = parsed(&schema);
        let mut once = json!({"spec": value});
        structural.prune(&mut once);
        let mut twice = once.clone();
        structural.prune(&mut twice);
        prop_assert_eq!(&once, &twice);
        structural.default(&mut once);
        let mut twice = once.clone();
        structural.default(&mut twice);
        prop_assert_eq!(&once, &twice);
        structural.prune(&mut twice);
        prop_assert_eq!(once, twice, "a default is not pruned");
    }

    #[test]
    fn what_was_valid_is_valid_with_its_defaults(schema in good_schema(), value in json_value()) {
        let structural = parsed(&schema);
        let mut object = json!({"spec": value});
        if structural.validate(&object, None).is_empty() {
            structural.prune(&mut object);
            structural.default(&mut object);
            prop_assert_eq!(structural.validate(&object, None), []);
        }
    }

    #[test]
    fn an_update_that_changes_nothing_is_taken(schema in good_schema(), value in json_value()) {
        let structural = parsed(&schema);
        let object = json!({"spec": value});
        prop_assert_eq!(structural.validate(&object, Some(&object)), []);
    }
}
