//! Patches of three types, and their outcome.

use crate::kinds::{Api, name, refusal};
use crate::rows::{differences, patched, report, rows};
use impresario_e2e::{Site, with_a_kubectl};

with_a_kubectl!(patches_have_the_recorded_outcome);

fn patches_have_the_recorded_outcome(site: &Site) {
    let api = Api::new(site);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for row in rows("patches.jsonl") {
        // Server-side applies are rows of steps.
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
