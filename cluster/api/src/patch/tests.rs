#[path = "../../tests/costs/even.rs"]
mod even;

use super::*;
use crate::schema;
use even::is_even;
use proptest::prelude::*;
use serde_json::json;

fn strategic(kind: &str, base: Value, patch: Value) -> Result<Value, PatchError> {
    strategic_merge(schema::message(kind).unwrap(), &base, patch)
}

#[test]
fn what_lay_in_an_object_and_is_known_no_more_is_not_held_against_a_patch() {
    let target = Target::of("", "v1", "ConfigMap").unwrap();
    let base =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "gone": 1});
    let patched = |form, patch: Value, validation| {
        apply(target, &base, form, patch.to_string().as_bytes(), validation)
    };
    let add = json!([{"op": "add", "path": "/data", "value": {"a": "b"}}]);
    let merge = json!({"data": {"a": "b"}});
    for (form, patch) in
        [(PatchType::Merge, &merge), (PatchType::Strategic, &merge), (PatchType::Json, &add)]
    {
        for validation in [FieldValidation::Strict, FieldValidation::Warn, FieldValidation::Ignore]
        {
            let outcome = patched(form, patch.clone(), validation).unwrap();
            assert_eq!(outcome.object["data"], json!({"a": "b"}));
            assert!(outcome.object.get("gone").is_none() && outcome.warnings.is_empty());
        }
    }
    // What a patch says itself is.
    for gone in [1, 2] {
        let says = json!({"data": {"a": "b"}, "gone": gone});
        let refused = patched(PatchType::Merge, says.clone(), FieldValidation::Strict);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("unknown field \"gone\""), "{refused}");
        let told = patched(PatchType::Merge, says, FieldValidation::Warn).unwrap().warnings;
        assert_eq!(told, ["unknown field \"gone\""]);
    }
}

#[test]
fn entries_merge_by_key_and_go_by_directive() {
    let spec = "api.core.v1.PodSpec";
    let table = [
        (
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "image": "2"}, {"name": "c"}]}),
            json!({"containers": [{"name": "a", "image": "2"}, {"name": "c"}, {"name": "b"}]}),
        ),
        (
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
        (
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "z"}, {"$patch": "replace"}]}),
            json!({"containers": [{"name": "z"}]}),
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "tty": true}]}),
            json!({"containers": [{"name": "a", "image": "j", "$patch": "replace"}]}),
            json!({"containers": []}),
        ),
        (
            json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}}),
            json!({"securityContext": {"$patch": "replace", "fsGroup": 3}}),
            json!({"securityContext": {"fsGroup": 3}}),
        ),
        (
            json!({"securityContext": {"runAsUser": 1}}),
            json!({"securityContext": {"$patch": "delete"}}),
            json!({"securityContext": {}}),
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}, "emptyDir": null}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        ),
        (
            json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
            json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}]}),
        ),
        (
            json!({"tolerations": [{"key": "a"}], "nodeSelector": {"a": "b", "c": "d"}}),
            json!({"tolerations": [{"key": "b"}], "nodeSelector": {"a": null, "e": "f"}}),
            json!({"tolerations": [{"key": "b"}], "nodeSelector": {"c": "d", "e": "f"}}),
        ),
        (
            json!({}),
            json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "env": null}], "affinity": {"$patch": "delete"}}),
            json!({"containers": [{"name": "b"}]}),
        ),
    ];
    for (base, patch, expected) in table {
        let merged = strategic(spec, base.clone(), patch.clone()).unwrap();
        assert_eq!(merged, expected, "{base} with {patch}");
    }
}

#[test]
fn a_deployments_strategy_loses_what_the_new_one_does_not_name() {
    let spec = "api.apps.v1.DeploymentSpec";
    let rolling = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
    let strategy = json!({"$retainKeys": ["type"], "type": "Recreate", "rollingUpdate": null});
    let recreate = json!({"strategy": strategy});
    let merged = strategic(spec, rolling, recreate).unwrap();
    assert_eq!(merged, json!({"strategy": {"type": "Recreate"}}));
}

#[test]
fn plain_lists_merge_as_sets_and_lose_what_is_deleted() {
    let meta = "apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let base = json!({"finalizers": ["a", "b"]});
    let merge = |patch| strategic(meta, base.clone(), patch).unwrap();
    assert_eq!(merge(json!({"finalizers": ["b", "c"]})), json!({"finalizers": ["a", "b", "c"]}));
    assert_eq!(
        merge(json!({"$deleteFromPrimitiveList/finalizers": ["a"]})),
        json!({"finalizers": ["b"]})
    );
    assert_eq!(
        merge(json!({
            "$deleteFromPrimitiveList/finalizers": ["a"],
            "$setElementOrder/finalizers": ["c", "b"],
            "finalizers": ["c"]
        })),
        json!({"finalizers": ["c", "b"]})
    );
}

#[test]
fn patches_that_contradict_the_schema_are_refused() {
    let spec = "api.core.v1.PodSpec";
    let base = json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]});
    let table = [
        (json!({"containers": [{"image": "i"}]}), 500),
        (json!({"containers": [{"$patch": "delete"}]}), 500),
        (json!({"containers": [{"name": "a", "$patch": "merge"}]}), 500),
        (json!({"containers": ["a"]}), 500),
        (json!({"$patch": "nonsense"}), 500),
        (json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {}}]}), 400),
        (json!({"volumes": [{"name": "v", "$retainKeys": "name"}]}), 400),
        (json!({"$setElementOrder/containers": {}}), 400),
        (json!({"$deleteFromPrimitiveList/containers": 1}), 400),
        (json!([1]), 400),
    ];
    for (patch, code) in table {
        let error = strategic(spec, base.clone(), patch.clone()).unwrap_err();
        assert_eq!(error.code(), code, "{patch}: {error}");
    }
}

#[test]
fn json_patches_stop_at_their_limits() {
    let base = json!({"a": "x".repeat(200_000)});
    let copies: Vec<Value> =
        (0..40).map(|_| json!({"op": "copy", "from": "", "path": "/b"})).collect();
    assert!(json_patch(&base, Value::Array(copies)).is_err_and(|error| error.code() == 413));
    let many = vec![json!({"op": "test", "path": "/a", "value": 1}); 10_001];
    assert_eq!(json_patch(&base, Value::Array(many)).unwrap_err().code(), 413);
    assert_eq!(json_patch(&base, json!([1])).unwrap_err().code(), 400);
    assert_eq!(json_patch(&base, json!([{"op": "remove", "path": "/b"}])).unwrap_err().code(), 422);
}

#[test]
fn a_json_patch_nests_no_deeper_than_what_is_sent_whole() {
    let nested = |levels: usize| (0..levels).fold(json!({}), |inner, _| json!({ "x": inner }));
    let inner = |name: &str, levels: usize| format!("/{name}{}", "/x".repeat(levels));
    let add = |name: &str| json!({"op": "add", "path": format!("/{name}"), "value": nested(97)});
    for form in ["move", "copy"] {
        // Each round puts what there is at the bottom of another such value.
        let mut rounds = vec![add("a")];
        for _ in 0..20 {
            for (from, to) in [("a", "b"), ("b", "a")] {
                rounds.push(add(to));
                let (from, path) = (format!("/{from}"), inner(to, 98));
                rounds.push(json!({"op": form, "from": from, "path": path}));
            }
        }
        let refused = json_patch(&json!({}), Value::Array(rounds));
        assert!(refused.is_err_and(|error| error.code() == 413), "{form}");
    }
    for form in ["add", "replace"] {
        let base = json!({"a": nested(60)});
        let put = |value: Value| {
            let put = json!([{"op": form, "path": inner("a", 60), "value": value}]);
            json_patch(&base, put)
        };
        assert!(put(nested(38)).is_ok(), "{form}");
        assert!(put(nested(39)).is_err_and(|error| error.code() == 413), "{form}");
    }
}

proptest! {
    /// Ordering neither loses nor makes entries, and keeps the order of the patch.
    #[test]
    fn merged_lists_hold_every_entry_once(
        base in proptest::collection::hash_set("[a-f]", 0..6),
        patch in proptest::collection::hash_set("[a-f]", 0..6),
    ) {
        let list = |names: &std::collections::HashSet<String>| -> Value {
            names.iter().map(|name| json!({"name": name})).collect()
        };
        let merged = strategic(
            "api.core.v1.PodSpec",
            json!({"containers": list(&base)}),
            json!({"containers": list(&patch)}),
        ).unwrap();
        let names: Vec<String> = merged["containers"].as_array().unwrap().iter()
            .map(|entry| entry["name"].as_str().unwrap().to_owned()).collect();
        let mut sorted = names.clone();
        sorted.sort();
        let mut expected: Vec<_> = base.union(&patch).cloned().collect();
        expected.sort();
        prop_assert_eq!(sorted, expected);
        let of_patch: Vec<_> = names.iter().filter(|name| patch.contains(*name)).collect();
        prop_assert_eq!(of_patch, patch.iter().collect::<Vec<_>>());
    }
}

/// The recorded patches, as far as they show without defaults: what the patch leaves of the
/// object as posted must be part of what the server answered.
#[test]
fn recorded_patches_come_out_as_recorded() {
    let rows = crate::rules::recorded_data::read("patches.jsonl");
    let mut seen = 0;
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let (name, object) = (&row["name"], &row["object"]);
        let Some(form) = row["type"].as_str().and_then(PatchType::parse) else { continue };
        let api_version = object["apiVersion"].as_str().unwrap();
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let target = Target::of(group, version, object["kind"].as_str().unwrap()).unwrap();
        let body = row["patch"].to_string();
        let outcome = apply(target, object, form, body.as_bytes(), FieldValidation::Warn);
        seen += 1;
        match (row["code"].as_u64().unwrap(), outcome) {
            (200, Ok(decoded)) => {
                let why = missing(&decoded.object, &row["out"]);
                assert!(why.is_none(), "{name}: {why:?}");
            }
            (200, Err(error)) => panic!("{name}: {error}"),
            // Refused by rules that come after the patch itself.
            (409 | 422, Ok(_)) => {}
            (code, Err(error)) => {
                assert_eq!(u64::from(error.code()), code, "{name}: {error}");
                let cause = row["causes"][0]["field"].as_str();
                let outcome = matches!(error, PatchError::Outcome { .. });
                assert_eq!(cause == Some("patch"), outcome, "{name}: {error}");
            }
            (code, Ok(_)) => panic!("{name} should be {code}"),
        }
    }
    assert!(seen >= 40, "only {seen} recorded patches");
}

/// The first path of `part` that `whole` lacks or has otherwise.
fn missing(part: &Value, whole: &Value) -> Option<String> {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .filter(|(name, _)| *name != "apiVersion")
            .find_map(|(name, value)| match whole.get(name) {
                // The server adds its own to the end of a pod's tolerations.
                Some(Value::Array(other)) if name == "tolerations" => value
                    .as_array()
                    .and_then(|list| missing(value, &other.get(..list.len())?.into())),
                Some(other) => missing(value, other).map(|why| format!("{name}.{why}")),
                None if value.as_object().is_some_and(serde_json::Map::is_empty) => None,
                None => Some(name.clone()),
            }),
        (Value::Array(part), Value::Array(whole)) if part.len() == whole.len() => {
            part.iter().zip(whole).enumerate().find_map(|(at, (part, whole))| {
                missing(part, whole).map(|why| format!("{at}.{why}"))
            })
        }
        _ => (part != whole).then(|| format!("{part} is {whole}")),
    }
}

#[test]
fn large_lists_merge_and_are_ordered_by_their_keys() {
    is_even(48_000, merge_large_lists);
}

fn merge_large_lists(many: usize) {
    let names = |from: usize| -> Vec<Value> {
        (from..from + many).map(|number| format!("example.org/f{number}").into()).collect()
    };
    let meta = "apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let base = json!({ "finalizers": names(0) });
    let patch = json!({ "finalizers": names(many / 2), "$setElementOrder/finalizers": names(0).into_iter().chain(names(many)).collect::<Vec<_>>() });
    let merged = strategic(meta, base.clone(), patch).unwrap();
    assert_eq!(merged["finalizers"].as_array().unwrap().len(), many + many / 2);
    let gone = json!({ "$deleteFromPrimitiveList/finalizers": names(1) });
    assert_eq!(strategic(meta, base, gone).unwrap(), json!({ "finalizers": ["example.org/f0"] }));

    let ports = |label: &str| -> Vec<Value> {
        (0..many).map(|number| json!({ "name": format!("c{number}"), "image": label })).collect()
    };
    let spec = "api.core.v1.PodSpec";
    let base = json!({ "containers": ports("old") });
    let patch = json!({ "containers": ports("new") });
    let merged = strategic(spec, base.clone(), patch).unwrap();
    assert_eq!(merged["containers"], Value::from(ports("new")));
    let gone: Vec<Value> =
        (1..many).map(|number| json!({"name": format!("c{number}"), "$patch": "delete"})).collect();
    let kept = strategic(spec, base, json!({ "containers": gone })).unwrap();
    assert_eq!(kept, json!({"containers": [{"name": "c0", "image": "old"}]}));
}

#[test]
fn patches_that_would_cost_far_more_than_they_say_are_refused() {
    let base = json!({"a": vec![0; 100_000]});
    let first = vec![json!({"op": "add", "path": "/a/0", "value": 1}); 10_000];
    assert_eq!(json_patch(&base, first.into()).unwrap_err().code(), 413);
    let last = vec![json!({"op": "add", "path": "/a/-", "value": 1}); 10_000];
    assert_eq!(
        json_patch(&base, last.into()).unwrap()["a"].as_array().map(Vec::len),
        Some(110_000)
    );

    let base = json!({"containers": [{"name": "c", "env": [{"name": "E"}]}]});
    let again = |times: usize| {
        let entries = vec![json!({"name": "c", "env": [{"name": "E", "value": "v"}]}); times];
        strategic("api.core.v1.PodSpec", base.clone(), json!({"containers": entries}))
    };
    assert_eq!(again(2).unwrap()["containers"][0]["env"], json!([{"name": "E", "value": "v"}]));
    assert_eq!(again(1_000).unwrap_err().code(), 413);
}

#[test]
fn many_orders_of_lists_are_taken_out_together() {
    is_even(40_000, take_orders_out);
}

fn take_orders_out(many: usize) {
    let mut patch = serde_json::Map::new();
    for number in 0..many {
        patch.insert(format!("$setElementOrder/l{number}"), json!([]));
    }
    patch.insert("$setElementOrder/containers".into(), json!([{"name": "b"}, {"name": "a"}]));
    patch.insert("hostname".into(), json!("h"));
    let base = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let merged = strategic("api.core.v1.PodSpec", base, patch.into()).unwrap();
    assert_eq!(merged, json!({"containers": [{"name": "b"}, {"name": "a"}], "hostname": "h"}));
}
