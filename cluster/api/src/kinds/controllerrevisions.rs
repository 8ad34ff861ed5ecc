//! ControllerRevision: what an object asked for once, so that there is a way back to it.

use crate::cause::Cause;
use crate::field::{Causes, Path, get, list, number, text};
use crate::resource::{Column, Effect, Resource, Rules};
use crate::rules::metadata;
use crate::table::{age, name, or_none};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        columns: vec![
            Column::name(),
            Column::text("Controller", "Whose revision it is."),
            Column::text("Revision", "Its number: the highest is the newest."),
            Column::age(),
        ],
        cells: Arc::new(cells),
        effect: Effect::by("the controller of daemon sets, which goes back to it"),
        rules: Rules {
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            ..Rules::plain()
        },
        ..Resource::named(
            "apps",
            "v1",
            "ControllerRevision",
            "controllerrevisions",
            "controllerrevision",
            "api.apps.v1.ControllerRevision",
        )
    }
}

fn validate(revision: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    if get(revision, "data").is_null() {
        causes.required(&Path::new("data"), "data is mandatory");
    }
    causes.not_negative(&Path::new("revision"), number(revision, "revision"));
    causes.into_vec()
}

/// Only its number and its metadata change.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(metadata::validate_again(new));
    causes.append(validate(new));
    causes.unchanged(&Path::new("data"), get(new, "data"), get(old, "data"));
    causes.into_vec()
}

fn cells(revision: &Value, now: Timestamp) -> Vec<Value> {
    let mut owners = list(revision, "metadata.ownerReferences").iter();
    let controller = owners.find(|owner| get(owner, "controller") == true).map(|owner| {
        let kind = text(owner, "kind").to_lowercase();
        let group = text(owner, "apiVersion").split_once('/').map(|(group, _)| format!(".{group}"));
        format!("{kind}{}/{}", group.unwrap_or_default(), text(owner, "name"))
    });
    vec![
        name(revision),
        or_none(&controller.unwrap_or_default()),
        number(revision, "revision").unwrap_or(0).to_string().into(),
        age(revision, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_revision_holds_does_not_change_but_its_number_may() {
        let revision = |number: i64, image: &str| {
            json!({"metadata": {"name": "a"}, "revision": number,
            "data": {"spec": {"template": {"image": image}}}})
        };
        assert_eq!(validate_update(&revision(2, "a"), &revision(1, "a")), []);
        let fields = |causes: Vec<Cause>| -> Vec<String> {
            causes.into_iter().map(|cause| cause.field).collect()
        };
        assert_eq!(fields(validate_update(&revision(1, "b"), &revision(1, "a"))), ["data"]);
        assert_eq!(fields(validate(&json!({"revision": -1}))), ["data", "revision"]);
    }

    #[test]
    fn a_table_names_whose_revision_it_is() {
        let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent",
            "controller": true});
        let revision = json!({"metadata": {"name": "agent-x", "ownerReferences": [owner]},
            "revision": 3});
        let cells = cells(&revision, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[..3], [json!("agent-x"), json!("daemonset.apps/agent"), json!("3")]);
    }
}
