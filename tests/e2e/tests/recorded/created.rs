//! Objects that are created, and what defaulting made of them; objects that are refused, and why.

use crate::kinds::{Api, name, refusal};
use crate::rows::{alike, differences, report, rows};
use impresario_e2e::{Site, with_a_kubectl};
use serde_json::{Value, json};

with_a_kubectl!(
    created_objects_come_back_with_the_recorded_defaults,
    invalid_objects_are_refused_for_every_recorded_cause_and_no_other,
);

/// What was recorded in another namespace, as it is in this one.
fn here(mut object: Value, namespace: &str) -> Value {
    if object["metadata"]["namespace"].is_string() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

fn created_objects_come_back_with_the_recorded_defaults(site: &Site) {
    let api = Api::new(site);
    // What was recorded had no class for claims that name none.
    let default = "storageclass.kubernetes.io/is-default-class=false";
    site.kubectl.run(&format!("annotate storageclass local {default} --overwrite")).ok();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for row in rows("defaults.jsonl") {
        let Some(place) = api.place(&row["in"]) else { continue };
        seen += 1;
        let label = row["name"].as_str().unwrap();
        let theirs = alike(here(row["out"].clone(), &api.namespace));
        // As recorded, and then in earnest: what is stored is what was promised.
        for query in ["?dryRun=All", ""] {
            let answer = api.proxy.post(&format!("{}{query}", place.collection), &row["in"]);
            if answer.code != 201 {
                wrong.push(format!("{label}{query}: refused: {answer:?}"));
                continue;
            }
            let mut found = Vec::new();
            differences("", &alike(answer.json()), &theirs, &mut found);
            let warned: Vec<&str> = answer
                .headers
                .iter()
                .filter_map(|line| line.split_once(": "))
                .filter(|(header, _)| header.eq_ignore_ascii_case("warning"))
                .map(|(_, text)| text)
                // What is ours alone to say: see docs/guides/kinds.md.
                .filter(|text| !text.contains("is stored and not enforced yet"))
                .collect();
            differences("warnings", &json!(warned), &row["warnings"], &mut found);
            wrong.extend(found.into_iter().map(|found| format!("{label}{query}: {found}")));
            let item = format!("{}/{}", place.collection, name(&row["in"]));
            if query.is_empty() {
                api.remove(&item);
            } else if api.proxy.get(&item).code != 404 {
                wrong.push(format!("{label}: a dry run left something"));
            }
        }
    }
    report(&wrong, seen);
}

fn invalid_objects_are_refused_for_every_recorded_cause_and_no_other(site: &Site) {
    let api = Api::new(site);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for row in rows("rejected.jsonl") {
        let Some(place) = api.place(&row["in"]) else { continue };
        seen += 1;
        let path = format!("{}?fieldValidation=Strict", place.collection);
        wrong.extend(refusal(&row, &api.proxy.post(&path, &row["in"]), &place, &row["in"]));
    }
    report(&wrong, seen);
}
