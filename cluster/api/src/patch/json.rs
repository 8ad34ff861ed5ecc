//! JSON patch, with the limits and the errors of Kubernetes.

use super::PatchError;
use json_patch::PatchOperation;
use serde_json::Value;

const MAX_OPERATIONS: usize = 10_000;
/// What `copy` may add in total: a short patch must not make a huge object.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

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
    let mut copied = 0;
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
        json_patch::patch(&mut object, std::slice::from_ref(&operation))
            .map_err(|error| PatchError::DoesNotApply(error.to_string()))?;
    }
    Ok(object)
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
