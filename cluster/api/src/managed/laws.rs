//! What holds of every merge, whatever is merged.

use super::compare::compare;
use super::merge::{merge, remove};
use super::owned::{faults, fields_of};
use super::typed::Type;
use crate::schema;
use proptest::prelude::*;
use serde_json::{Value, json};

fn text() -> impl Strategy<Value = Value> {
    "[a-c]".prop_map(Value::from)
}

fn named(inner: BoxedStrategy<Value>) -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-d]", inner, 1..4).prop_map(|entries| {
        let list = entries.into_iter().map(|(name, mut entry)| {
            entry["name"] = name.into();
            entry
        });
        Value::Array(list.collect())
    })
}

fn maybe(
    name: &'static str,
    value: impl Strategy<Value = Value> + 'static,
) -> BoxedStrategy<Value> {
    proptest::option::of(value)
        .prop_map(move |value| value.map_or_else(|| json!({}), |value| json!({ name: value })))
        .boxed()
}

fn joined(parts: Vec<BoxedStrategy<Value>>) -> BoxedStrategy<Value> {
    parts
        .prop_map(|parts| {
            let all = parts.into_iter().filter_map(|part| part.as_object().cloned()).flatten();
            Value::Object(all.collect())
        })
        .boxed()
}

/// A pod with entries of lists (none of which is empty: nobody owns an empty one) with keys, sets, atomic lists and maps, and structs.
fn pod() -> impl Strategy<Value = Value> {
    let labels = || {
        proptest::collection::btree_map("[a-c]", "[0-1]", 0..3).prop_map(|map| {
            Value::Object(map.into_iter().map(|(k, v)| (k, Value::from(v))).collect())
        })
    };
    let finalizers = proptest::collection::btree_set("[a-c]", 1..3)
        .prop_map(|set| Value::from(set.into_iter().collect::<Vec<_>>()));
    let env = named(maybe("value", text()));
    let args = proptest::collection::vec("[a-c]", 0..3).prop_map(Value::from);
    let container = joined(vec![maybe("image", text()), maybe("env", env), maybe("args", args)]);
    let context = maybe("runAsUser", (0..3_i64).prop_map(Value::from));
    let spec = joined(vec![
        maybe("containers", named(container)),
        maybe("nodeSelector", labels()),
        maybe("securityContext", context),
        maybe("hostname", text()),
    ]);
    let metadata = joined(vec![maybe("labels", labels()), maybe("finalizers", finalizers)]);
    joined(vec![maybe("metadata", metadata), maybe("spec", spec)])
}

fn of() -> Type<'static> {
    Type::Message(schema::message("api.core.v1.Pod").unwrap())
}

proptest! {
    #[test]
    fn what_is_merged_is_there_and_nothing_else_has_changed(live in pod(), applied in pod()) {
        prop_assert!(faults(of(), &applied).is_empty());
        let mut merged = live.clone();
        merge(of(), &mut merged, &applied);
        let mine = fields_of(of(), &applied);
        let found = compare(of(), Some(&live), Some(&merged));
        // Nothing goes by a merge, and what changes is what was applied, or leads there.
        prop_assert!(found.removed.is_empty(), "{found:?}");
        let mut others = found.changed.clone();
        others.leave(&mine);
        prop_assert!(others.is_empty(), "{others:?} of {found:?}");
        // To merge it again changes nothing.
        let mut again = merged.clone();
        merge(of(), &mut again, &applied);
        prop_assert_eq!(&again, &merged);
    }

    #[test]
    fn what_two_states_do_not_have_alike_is_found(old in pod(), new in pod()) {
        let found = compare(of(), Some(&old), Some(&new));
        prop_assert!(compare(of(), Some(&old), Some(&old)).is_same());
        prop_assert!(found.changed.is_disjoint(&found.removed));
        let back = compare(of(), Some(&new), Some(&old));
        // What comes one way goes the other.
        prop_assert_eq!(found.removed.len(), found.removed.intersection(&back.changed).len());
        prop_assert_eq!(back.removed.len(), back.removed.intersection(&found.changed).len());
    }

    #[test]
    fn what_was_merged_alone_is_gone_once_it_is_taken_out(live in pod(), applied in pod()) {
        let mut merged = live.clone();
        merge(of(), &mut merged, &applied);
        let theirs = fields_of(of(), &live);
        let mut gone = fields_of(of(), &applied);
        gone.leave(&theirs);
        remove(of(), &mut merged, &gone, Some(&theirs));
        let left = fields_of(of(), &merged);
        prop_assert!(left.intersection(&gone).is_empty(), "{left:?} has something of {gone:?}");
        prop_assert_eq!(theirs.clone().difference(&left).paths(), Vec::<String>::new());
    }
}
