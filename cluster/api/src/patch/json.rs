//! JSON patch, with the limits and the errors of Kubernetes.

use super::error::PatchError;
use json_patch::PatchOperation;
use serde_json::Value;

const MAX_OPERATIONS: usize = 10_000;
/// What `copy` may add in total: a short patch must not make a huge object.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// How many entries of lists may move up or down, in total: a short patch must not move a long list
/// again and again.
const MAX_MOVED_ENTRIES: usize = 20_000_000;

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
    let (mut copied, mut moved) = (0, 0_usize);
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
        json_patch::patch(&mut object, std::slice::from_ref(&operation))
            .map_err(|error| PatchError::DoesNotApply(error.to_string()))?;
    }
    Ok(object)
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
