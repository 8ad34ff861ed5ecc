//! The cells that many kinds have.

use super::span::human_duration;
use crate::field::{entries, list, map, text};
use jiff::Timestamp;
use serde_json::{Map, Value};

/// Shown where nothing is set.
pub const NONE: &str = "<none>";
/// Shown where nothing is known.
pub const UNKNOWN: &str = "<unknown>";

/// The cell with the object's name.
pub fn name(object: &Value) -> Value {
    text(object, "metadata.name").into()
}

/// The cell with the object's age.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(text(object, "metadata.creationTimestamp"), now).into()
}

/// How long ago a time was; `<unknown>` when it is not given.
pub fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => human_duration(now.as_second() - time.as_second()),
        Err(_) => UNKNOWN.to_owned(),
    }
}

/// A text, or `<none>`.
pub fn or_none(text: &str) -> Value {
    if text.is_empty() { NONE.into() } else { text.into() }
}

/// A text, or `<unset>`.
pub fn or_unset(text: &str) -> Value {
    if text.is_empty() { "<unset>".into() } else { text.into() }
}

/// `a=b,c=d` of a map of labels, or `<none>`.
pub fn label_list(object: &Value, path: &str) -> Value {
    let labels: Vec<String> = entries(object, path)
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&labels.join(","))
}

/// The names and images of a pod template's containers, as two cells.
pub fn containers_and_images(object: &Value, path: &str) -> [Value; 2] {
    let column = |field: &str| {
        let all: Vec<&str> =
            list(object, path).iter().map(|container| text(container, field)).collect();
        Value::from(all.join(","))
    };
    [column("name"), column("image")]
}

/// How many entries some maps have together.
pub fn entry_count(object: &Value, paths: &[&str]) -> Value {
    paths.iter().map(|path| map(object, path).map_or(0, Map::len)).sum::<usize>().into()
}

/// The first three of a list and how many more there are.
pub fn first_three(all: &[String], empty: &str) -> Value {
    match all {
        [] => empty.into(),
        all if all.len() <= 3 => all.join(",").into(),
        all => format!("{} + {} more...", all[..3].join(","), all.len() - 3).into(),
    }
}
