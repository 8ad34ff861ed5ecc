//! Patches of three types and applies, and their outcome.

use crate::kinds::{Api, name, refusal};
use crate::rows::{differences, patched, recorded_causes, report, rows};
use impresario_e2e::{Site, with_a_kubectl};
use serde_json::{Value, json};

with_a_kubectl!(patches_have_the_recorded_outcome, applies_have_the_recorded_outcome);

fn patches_have_the_recorded_outcome(site: &Site) {
    let api = Api::new(site);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for row in rows("patches.jsonl") {
        // Applies are rows of steps, see below.
        if !row["steps"].is_null() {
            continue;
        }
        let Some(place) = api.place(&row["object"]) else { continue };
        seen += 1;
        let label = row["name"].as_str().unwrap();
        let created = api.proxy.post(&place.collection, &row["object"]);
        assert_eq!(created.code, 201, "{label}: the object itself: {created:?}");
        let item = format!("{}/{}", place.collection, name(&row["object"]));
        let before = patched(created.json());
        let stored = || patched(api.proxy.get(&item).json());
        let body = row["patch"].to_string();
        for query in ["?dryRun=All", ""] {
            let path = format!("{item}{query}");
            let type_ = row["type"].as_str().unwrap();
            let answer = api.proxy.send("PATCH", &path, type_, body.as_bytes());
            let mut found = Vec::new();
            let after = if row["code"] != 200 {
                wrong.extend(refusal(&row, &answer, &place, &row["object"]));
                &before
            } else if answer.code != 200 {
                wrong.push(format!("{label}{query}: refused: {answer:?}"));
                &before
            } else {
                let theirs = patched(row["out"].clone());
                differences("", &patched(answer.json()), &theirs, &mut found);
                if query.is_empty() { &patched(answer.json()) } else { &before }
            };
            differences("stored", &stored(), after, &mut found);
            wrong.extend(found.into_iter().map(|found| format!("{label}{query}: {found}")));
        }
        api.remove(&item);
    }
    report(&wrong, seen);
}

/// What a step applies; rows of config maps do not say so.
fn applied(step: &Value, name: &str) -> Value {
    let mut applied = step["apply"].clone();
    if applied["kind"].is_null() {
        applied["apiVersion"] = "v1".into();
        applied["kind"] = "ConfigMap".into();
    }
    applied["metadata"]["name"] = name.into();
    applied
}

fn applies_have_the_recorded_outcome(site: &Site) {
    let api = Api::new(site);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (number, row) in rows("patches.jsonl").iter().enumerate() {
        let Some(steps) = row["steps"].as_array() else { continue };
        let name = format!("applied-{number}");
        let mut item = String::new();
        for (index, step) in steps.iter().enumerate() {
            let body = applied(step, &name);
            if let Some(place) = api.place(&body) {
                item = format!("{}/{name}", place.collection);
            }
            seen += 1;
            let label = format!("{} ({index})", row["name"].as_str().unwrap());
            let (manager, force) = (step["manager"].as_str().unwrap(), &step["force"]);
            let path = format!("{item}?fieldManager={manager}&force={force}");
            let kind = "application/apply-patch+yaml";
            let answer = api.proxy.send("PATCH", &path, kind, body.to_string().as_bytes());
            let mut found = Vec::new();
            differences("code", &json!(answer.code), &step["code"], &mut found);
            let told = answer.json();
            if answer.code >= 400 {
                let ours = recorded_causes(&told["details"]);
                let theirs = recorded_causes(step);
                if ours != theirs {
                    found.push(format!("ours {ours:?}, theirs {theirs:?}"));
                }
            } else {
                let mut managers = json!({});
                for entry in told["metadata"]["managedFields"].as_array().unwrap() {
                    if entry["operation"] == "Apply" {
                        managers[entry["manager"].as_str().unwrap()] = entry["fieldsV1"].clone();
                    }
                }
                differences("managers", &managers, &step["managers"], &mut found);
                let (mut ours, theirs) = (patched(told), patched(step["out"].clone()));
                // Applies were recorded without the name.
                ours["metadata"].as_object_mut().unwrap().remove("name");
                differences("", &ours, &theirs, &mut found);
            }
            wrong.extend(found.into_iter().map(|found| format!("{label}: {found}")));
        }
        if row["steps"][0]["code"] == 201 {
            api.remove(&item);
        }
    }
    report(&wrong, seen);
}
