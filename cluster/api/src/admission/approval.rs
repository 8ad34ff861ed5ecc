//! The door through which what was asked for is approved or denied, and which nothing else passes.

use crate::field::{copy, default, get, list, list_mut, object_mut, set, text};
use crate::rules::metadata;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

/// The conditions that only this door takes.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

fn is_decision(condition: &Value) -> bool {
    DECISIONS.contains(&text(condition, "type"))
}

/// Takes the conditions of a status, the time of each where it says none, and the metadata.
pub(super) fn keep_all_but(new: &mut Value, old: &Value, now: Timestamp) {
    let mut kept = old.clone();
    let conditions = get(get(new, "status"), "conditions").clone();
    set(object_mut(&mut kept, "status"), "conditions", conditions);
    copy(new, &mut kept, "metadata");
    let now = metadata::time(now);
    let had: BTreeMap<&str, &Value> =
        list(old, "status.conditions").iter().map(|one| (text(one, "type"), one)).collect();
    for condition in list_mut(object_mut(&mut kept, "status"), "conditions") {
        default(condition, "lastUpdateTime", now.as_str());
        let kind = text(condition, "type").to_owned();
        let before = had.get(kind.as_str());
        if get(condition, "lastTransitionTime").is_null() {
            let same = before.filter(|one| get(one, "status") == get(condition, "status"));
            let since = same.map(|one| get(one, "lastTransitionTime").clone());
            let since = since.filter(|since| !since.is_null());
            set(condition, "lastTransitionTime", since.unwrap_or_else(|| now.as_str().into()));
        }
    }
    if list(&kept, "status.conditions").is_empty() {
        crate::field::remove(object_mut(&mut kept, "status"), "conditions");
    }
    *new = kept;
}

/// What was decided stays as it was through the status door.
pub(super) fn keep(new: &mut Value, old: &Value) {
    let decided = list(old, "status.conditions").iter().filter(|one| is_decision(one)).cloned();
    let others = list(new, "status.conditions").iter().filter(|one| !is_decision(one)).cloned();
    let all: Vec<Value> = decided.chain(others).collect();
    let status = object_mut(new, "status");
    if all.is_empty() {
        crate::field::remove(status, "conditions");
    } else {
        set(status, "conditions", all);
    }
}
