//! Objects of kinds whose schema came at run time: their metadata is that of every object, and what their
//! schema does not know is dropped and reported.

use super::check::{self, WrongFields};
use super::reported::Reported;
use crate::dynamic::DynamicSchema;
use crate::schema;
use serde_json::Value;
use std::fmt::Write;

/// Checks `object` in place. Gives the paths that were dropped, where somebody wants to be told.
pub(super) fn check(
    schema: &dyn DynamicSchema,
    object: &mut Value,
    tells: bool,
) -> Result<Vec<String>, WrongFields> {
    let mut unknown = Reported::default();
    if let (Some(metadata), Some(message)) =
        (object.get_mut("metadata"), schema::message("apimachinery.pkg.apis.meta.v1.ObjectMeta"))
    {
        if metadata.is_null() {
            *metadata = Value::Object(serde_json::Map::new());
        }
        for path in check::check(message, metadata)?.unknown {
            unknown.add(&format!("metadata.{path}"));
        }
    }
    let before = tells.then(|| object.clone());
    schema.prune(object);
    if let Some(before) = before {
        missing(&before, object, &mut String::new(), &mut unknown);
    }
    Ok(unknown.into_paths())
}

/// Reports what was there before and is not any more.
fn missing(before: &Value, after: &Value, path: &mut String, unknown: &mut Reported) {
    let length = path.len();
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(name);
                match after.get(name) {
                    Some(after) => missing(value, after, path, unknown),
                    None => unknown.add(path),
                }
                path.truncate(length);
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (at, (before, after)) in before.iter().zip(after).enumerate() {
                let _ = write!(path, "[{at}]"); // into memory
                missing(before, after, path, unknown);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
