//! JSON patch, with the limits and the errors of Kubernetes.

use super::error::PatchError;
use crate::wire::MAX_DEPTH;
use json_patch::PatchOperation;
use serde_json::Value;

const MAX_OPERATIONS: usize = 10_000;
/// What `copy` may add in total: a short patch must not make a huge object.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// How many entries of lists may move up or down, in total: a short patch must not move a long list
/// again and again.
const MAX_MOVED_ENTRIES: usize = 20_000_000;
/// How many values are looked at, in total, for how deep they nest: a short patch must not have a large value measured
/// again and again.
const MAX_MEASURED: usize = 20_000_000;

pub(super) fn apply(base: &Value, patch: Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        return Err(PatchError::BadRequest(
            "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch".to_owned(),
        ));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    if let Some(other) = operations.iter().find(|operation| !operation.is_object()) {
        return Err(PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {other} into Go value of type jsonpatch.Operation"
        )));
    }
    let mut object = base.clone();
    let (mut copied, mut moved, mut measured) = (0, 0_usize, 0_usize);
    for operation in operations {
        let operation = read(operation)?;
        if let PatchOperation::Copy(copy) = &operation {
            copied += copy.from.resolve(&object).map_or(0, |from| from.to_string().len());
            if copied > MAX_COPIED_BYTES {
                return Err(PatchError::TooLarge(format!(
                    "the copies in this JSON patch are over the limit of {MAX_COPIED_BYTES} bytes"
                )));
            }
        }
        moved = moved.saturating_add(moves(&object, &operation));
        if moved > MAX_MOVED_ENTRIES {
            return Err(PatchError::TooLarge(format!(
                "this JSON patch would move more than {MAX_MOVED_ENTRIES} entries of lists: change their ends, or \
                 replace them"
            )));
        }
        if let Some((path, value)) = put(&object, &operation) {
            // Each of its words may be in an object or a list of its own.
            let above = path.matches('/').count();
            if !nests_at_most(value, MAX_DEPTH.saturating_sub(above), &mut measured) {
                return Err(PatchError::TooLarge(format!(
                    "this JSON patch would nest values more than {MAX_DEPTH} deep"
                )));
            }
            if measured > MAX_MEASURED {
                return Err(PatchError::TooLarge(format!(
                    "this JSON patch puts more than {MAX_MEASURED} values in their places: split it"
                )));
            }
        }
        json_patch::patch(&mut object, std::slice::from_ref(&operation))
            .map_err(|error| PatchError::DoesNotApply(error.to_string()))?;
    }
    Ok(object)
}

/// What an operation puts where. Deep values are dropped by recursion: what is put together of many parts must never
/// nest deeper than what could be sent as a whole.
fn put<'a>(object: &'a Value, operation: &'a PatchOperation) -> Option<(&'a str, &'a Value)> {
    match operation {
        PatchOperation::Add(add) => Some((add.path.as_str(), &add.value)),
        PatchOperation::Replace(replace) => Some((replace.path.as_str(), &replace.value)),
        PatchOperation::Move(moved) => {
            Some((moved.path.as_str(), object.pointer(moved.from.as_str())?))
        }
        PatchOperation::Copy(copy) => {
            Some((copy.path.as_str(), object.pointer(copy.from.as_str())?))
        }
        PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
    }
}

/// Whether no more than so many objects and lists lie in each other. Goes no deeper than that, and counts what it sees.
fn nests_at_most(value: &Value, depth: usize, measured: &mut usize) -> bool {
    *measured = measured.saturating_add(1);
    let mut fits = |value| depth > 0 && nests_at_most(value, depth - 1, measured);
    match value {
        Value::Array(entries) => depth > 0 && entries.iter().all(&mut fits),
        Value::Object(fields) => depth > 0 && fields.values().all(&mut fits),
        _ => true,
    }
}

/// How many entries of lists an operation moves up or down.
fn moves(object: &Value, operation: &PatchOperation) -> usize {
    let behind = |place: &str| -> usize {
        let Some((list, index)) = place.rsplit_once('/') else { return 0 };
        let length = object.pointer(list).and_then(Value::as_array).map_or(0, Vec::len);
        index.parse().map_or(0, |index: usize| length.saturating_sub(index))
    };
    match operation {
        PatchOperation::Add(add) => behind(add.path.as_str()),
        PatchOperation::Remove(remove) => behind(remove.path.as_str()),
        PatchOperation::Move(moved) => behind(moved.from.as_str()) + behind(moved.path.as_str()),
        PatchOperation::Copy(copy) => behind(copy.path.as_str()),
        PatchOperation::Replace(_) | PatchOperation::Test(_) => 0,
    }
}

fn read(operation: Value) -> Result<PatchOperation, PatchError> {
    let name = operation.get("op").and_then(Value::as_str).unwrap_or_default().to_owned();
    serde_json::from_value(operation).map_err(|error| {
        PatchError::DoesNotApply(match name.as_str() {
            "add" | "remove" | "replace" | "move" | "copy" | "test" => error.to_string(),
            _ => format!("Unexpected kind: {name}"),
        })
    })
}
