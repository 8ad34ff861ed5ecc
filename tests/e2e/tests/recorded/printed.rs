//! Tables: what their columns are, and what they print of objects whose status is known.

use crate::kinds::{Api, WANTED, name};
use crate::rows::{differences, recorded, report, rows};
use impresario_e2e::{Answer, Site, with_a_kubectl};
use serde_json::{Value, json};

with_a_kubectl!(tables_have_the_recorded_columns, tables_print_the_recorded_cells);

/// Nobody schedules the pods of these rows or looks after their jobs, so that their status stays as
/// it was recorded.
const NOBODY: &str = "example.org/nobody";

fn recorded_columns(api_version: &str, plural: &str) -> Value {
    let table = recorded("columns.tsv");
    let columns = table.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    columns
        .filter(|column| column[0] == api_version && column[1] == plural)
        .map(|column| json!([column[2], column[3], column[4], column[5].parse::<u8>().unwrap()]))
        .collect()
}

fn tables_have_the_recorded_columns(site: &Site) {
    let api = Api::new(site);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (api_version, kind) in WANTED {
        let place = api.place(&json!({"apiVersion": api_version, "kind": kind})).unwrap();
        let table = api.proxy.table("GET", &format!("{}?limit=1", place.collection), None).json();
        let ours: Value = table["columnDefinitions"]
            .as_array()
            .unwrap_or_else(|| panic!("{kind}: no columns in {table}"))
            .iter()
            .map(|it| json!([it["name"], it["type"], it["format"], it["priority"]]))
            .collect();
        seen += 1;
        differences(kind, &ours, &recorded_columns(api_version, &place.plural), &mut wrong);
    }
    report(&wrong, seen);
}

/// The object as somebody would have made it: without what the server drew.
fn undrawn(object: &Value, namespace: &str) -> Value {
    let mut object = object.clone();
    if let Some(about) = object.pointer_mut("/involvedObject/namespace") {
        *about = namespace.into();
    }
    let fields = object.as_object_mut().unwrap();
    fields.remove("status");
    let is_job = fields["kind"] == "Job";
    let metadata = fields["metadata"].as_object_mut().unwrap();
    for drawn in ["namespace", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.remove(drawn);
    }
    if is_job {
        metadata.remove("labels");
    }
    let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) else { return object };
    if spec.get("clusterIP").is_some_and(|address| address != "None") {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        port.as_object_mut().unwrap().remove("nodePort");
    }
    if is_job {
        spec.remove("selector");
        spec["template"]["metadata"].as_object_mut().unwrap().remove("labels");
    }
    if spec.contains_key("containers") {
        spec.insert("schedulerName".into(), NOBODY.into());
    } else if let Some(template) = spec.get_mut("template") {
        template["spec"]["schedulerName"] = NOBODY.into();
    }
    if is_job {
        spec.insert("managedBy".into(), NOBODY.into());
    }
    object
}

/// The recorded cells with what was drawn then replaced by what has been drawn now.
fn redrawn(row: &Value, made: &Value) -> Value {
    let mut cells = row["cells"].to_string();
    let recorded = &row["object"];
    let mut drawn = vec![
        "/spec/clusterIP".to_owned(),
        "/spec/selector/matchLabels/batch.kubernetes.io~1controller-uid".to_owned(),
    ];
    drawn.extend((0..9).map(|port| format!("/spec/ports/{port}/nodePort")));
    for pointer in drawn {
        let (Some(then), Some(now)) = (recorded.pointer(&pointer), made.pointer(&pointer)) else {
            continue;
        };
        let bare = |value: &Value| value.to_string().trim_matches('"').to_owned();
        cells = cells.replace(&bare(then), &bare(now));
    }
    serde_json::from_str(&cells).unwrap()
}

/// Such as `5m30s`.
fn is_span(cell: &Value) -> bool {
    let text = cell.as_str().unwrap_or_default();
    text.starts_with(|first: char| first.is_ascii_digit())
        && text.ends_with(['s', 'm', 'h', 'd', 'y'])
        && text.chars().all(|c| c.is_ascii_digit() || "smhdy".contains(c))
}

fn compare(answer: &Answer, theirs: &Value, wrong: &mut Vec<String>) {
    let table = answer.json();
    let (columns, rows) = (table["columnDefinitions"].as_array(), table["rows"].as_array());
    let (Some(columns), Some([row])) = (columns, rows.map(Vec::as_slice)) else {
        wrong.push(format!("no table of one row: {answer:?}"));
        return;
    };
    let cells = row["cells"].as_array().unwrap();
    assert_eq!(cells.len(), columns.len(), "{table}");
    let mut ours = json!({});
    for (column, cell) in columns.iter().zip(cells) {
        let title = column["name"].as_str().unwrap();
        let is_date =
            column["type"] == "date" && cell.as_str().is_some_and(|cell| cell.ends_with('Z'));
        let is_time = theirs[title] == "$time" && (is_span(cell) || is_date);
        ours[title] = if is_time { "$time".into() } else { cell.clone() };
    }
    differences("", &ours, theirs, wrong);
}

fn tables_print_the_recorded_cells(site: &Site) {
    let api = Api::new(site);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for row in rows("tables.jsonl") {
        let Some(place) = api.place(&row["object"]) else { continue };
        seen += 1;
        let (label, object) = (row["name"].as_str().unwrap(), &row["object"]);
        let made = api.proxy.post(&place.collection, &undrawn(object, &api.namespace));
        assert_eq!(made.code, 201, "{label}: {made:?}");
        let made = made.json();
        let theirs = redrawn(&row, &made);
        let item = format!("{}/{}", place.collection, name(object));
        if object["metadata"]["deletionTimestamp"].is_string() {
            let now = br#"{"gracePeriodSeconds":0}"#;
            let deleted = api.proxy.send("DELETE", &item, "application/json", now);
            assert_eq!(deleted.code, 200, "{label}: {deleted:?}");
        }
        let mut found = Vec::new();
        if object["status"].is_object() {
            let mut with_status = made.clone();
            with_status["metadata"].as_object_mut().unwrap().remove("resourceVersion");
            with_status["status"] = object["status"].clone();
            let door = format!("{item}/status");
            let dry = api.proxy.table("PUT", &format!("{door}?dryRun=All"), Some(&with_status));
            compare(&dry, &theirs, &mut found);
            // Some statuses are written by their controllers, whatever anybody says.
            let kept = [
                "ReplicationController",
                "ReplicaSet",
                "Deployment",
                "DaemonSet",
                "StatefulSet",
                "CronJob",
                "PodDisruptionBudget",
                "ResourceQuota",
            ];
            if kept.iter().all(|kind| object["kind"] != *kind) {
                let put = with_status.to_string();
                let put = api.proxy.send("PUT", &door, "application/json", put.as_bytes());
                assert_eq!(put.code, 200, "{label}: {put:?}");
                compare(&api.proxy.table("GET", &item, None), &theirs, &mut found);
            }
        } else {
            compare(&api.proxy.table("GET", &item, None), &theirs, &mut found);
        }
        wrong.extend(found.into_iter().map(|found| format!("{label}: {found}")));
        api.remove(&item);
    }
    report(&wrong, seen);
}
