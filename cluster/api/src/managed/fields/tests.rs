//! The laws of sets, and how they are written.

use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        "[a-c]{1,2}".prop_map(|name| Step::field(&name)),
        (0..3_i64).prop_map(|value| Step::value(&json!(value))),
        ("[ab]", 0..2_i64)
            .prop_map(|(name, port)| Step::keys([("name", &json!(name)), ("port", &json!(port))])),
        (0..2_usize).prop_map(Step::index),
    ]
}

type Paths = BTreeSet<Vec<Step>>;

fn paths() -> impl Strategy<Value = Paths> {
    proptest::collection::btree_set(proptest::collection::vec(step(), 1..5), 0..12)
}

fn set(paths: &Paths) -> Fields {
    paths.iter().cloned().collect()
}

fn listed(fields: &Fields) -> Paths {
    let mut paths = Paths::new();
    fields.each(&mut |path| {
        paths.insert(path.iter().map(|step| (*step).clone()).collect());
    });
    paths
}

proptest! {
    #[test]
    fn a_set_is_the_set_of_its_paths(a in paths(), b in paths()) {
        let (fields, other) = (set(&a), set(&b));
        prop_assert_eq!(listed(&fields), a.clone());
        prop_assert_eq!(fields.len(), a.len());
        prop_assert!(a.iter().all(|path| fields.contains(path)));
        let union: Paths = a.union(&b).cloned().collect();
        prop_assert_eq!(fields.clone().union(&other), set(&union));
        let difference: Paths = a.difference(&b).cloned().collect();
        prop_assert_eq!(fields.clone().difference(&other), set(&difference));
        let both: Paths = a.intersection(&b).cloned().collect();
        prop_assert_eq!(fields.intersection(&other), set(&both));
        prop_assert_eq!(fields.is_disjoint(&other), both.is_empty());
        prop_assert_eq!(fields.is_empty(), a.is_empty());
    }

    #[test]
    fn what_is_written_is_read_again(a in paths()) {
        let fields = set(&a);
        let written = fields.to_value();
        prop_assert_eq!(&Fields::parse(&written).unwrap(), &fields);
        let text = written.to_string();
        let again: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(Fields::parse(&again).unwrap().to_value().to_string(), text.clone());
        prop_assert_eq!(serde_json::to_value(&fields).unwrap().to_string(), text);
    }
}

#[test]
fn a_place_and_what_is_below_it_are_told_apart() {
    let fields = Fields::parse(&json!({
        "f:metadata": { "f:labels": { ".": {}, "f:a": {} } },
        "f:spec": { "f:ports": { "k:{\"protocol\":\"TCP\",\"port\":80}": { ".": {}, "f:port": {} } } },
        "x:later": { "f:a": {} },
    }))
    .unwrap();
    let wanted = [
        ".metadata.labels",
        ".metadata.labels.a",
        r#".spec.ports[port=80,protocol="TCP"]"#,
        r#".spec.ports[port=80,protocol="TCP"].port"#,
    ];
    assert_eq!(fields.paths(), wanted);
    assert_eq!(
        fields.to_value(),
        json!({
            "f:metadata": { "f:labels": { ".": {}, "f:a": {} } },
            "f:spec": { "f:ports": { "k:{\"port\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:port": {} } } },
        })
    );
}

#[test]
fn what_is_no_set_is_refused_and_so_is_what_is_too_large() {
    for wrong in [json!([]), json!({"f:a": 1}), json!({"f:a": null}), json!({"k:{}": {}})] {
        assert!(Fields::parse(&wrong).is_err(), "{wrong}");
    }
    let many: Map<String, Value> =
        (0..=MOST_PLACES).map(|number| (format!("f:{number}"), json!({}))).collect();
    assert_eq!(Fields::parse(&many.into()), Err(FieldsError::TooMany));
    let mut deep = json!({});
    for _ in 0..=DEEPEST {
        deep = json!({ "f:a": deep });
    }
    assert_eq!(Fields::parse(&deep), Err(FieldsError::TooDeep));
}
