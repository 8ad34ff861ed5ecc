//! Changes that clients describe instead of sending the whole object.
//!
//! Three forms: JSON patch (RFC 6902), JSON merge patch (RFC 7386), and strategic merge patch,
//! which knows from the schema which lists are merged and by which key. [`apply`] reads the
//! body, applies it to a copy and checks the outcome against the schema: a patch that does not
//! apply, or that leaves an object of wrong types, changes nothing.

mod applied;
mod error;
mod json;
mod order;
mod strategic;

pub use applied::{LAST_APPLIED, apply_patch, with_last_applied};
pub use error::PatchError;

use crate::wire::{self, Decoded, FieldValidation, Target};
use serde_json::Value;

/// The form of a patch, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

impl PatchType {
    /// The media types that [`apply`] takes.
    pub const MEDIA_TYPES: [&'static str; 3] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ];

    /// Reads a content type.
    pub fn parse(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            _ => None,
        }
    }
}

/// Applies the body of a PATCH request to an object of the target's kind. Fields that lay in the object and are known no
/// more, since its schema has changed, are dropped without a word: what is told or refused is what the patch says.
pub fn apply(
    target: Target<'_>,
    base: &Value,
    form: PatchType,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, PatchError> {
    let outcome = apply_to(target, base, form, body, validation);
    let is_told = match &outcome {
        Ok(decoded) => !decoded.warnings.is_empty(),
        Err(error) => {
            validation == FieldValidation::Strict && matches!(error, PatchError::Outcome { .. })
        }
    };
    if !is_told {
        return outcome;
    }
    let mut known = base.clone();
    match wire::check(target.looks, &mut known, Vec::new(), FieldValidation::Warn) {
        Ok(left) if !left.is_empty() => apply_to(target, &known, form, body, validation),
        _ => outcome,
    }
}

fn apply_to(
    target: Target<'_>,
    base: &Value,
    form: PatchType,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, PatchError> {
    let patch = wire::parse(wire::JSON, body).map_err(|error| match error {
        wire::DecodeError::TooLarge => PatchError::TooLarge(error.to_string()),
        wire::DecodeError::Malformed { why, .. } => PatchError::BadRequest(why),
        other => PatchError::BadRequest(other.to_string()),
    })?;
    let mut object = match form {
        PatchType::Json => json_patch(base, patch)?,
        PatchType::Merge => merge_patch(base, &patch)?,
        PatchType::Strategic => {
            let message = target.looks.message().ok_or(PatchError::NoStrategicMerge)?;
            strategic_merge(message, base, patch)?
        }
    };
    // What is quoted is how it was before the check, which changes it; only so much of it is kept.
    let outcome = beginning(&object);
    if !object.is_object() {
        let why = format!("json: cannot unmarshal {outcome} into Go value of type {}", target.kind);
        return Err(PatchError::Outcome { outcome, why });
    }
    let warnings = wire::check(target.looks, &mut object, Vec::new(), validation)
        .map_err(|wrong| PatchError::Outcome { outcome, why: wrong.0 })?;
    Ok(Decoded { object, warnings })
}

/// Applies a JSON patch: all of it, or nothing.
pub fn json_patch(base: &Value, patch: Value) -> Result<Value, PatchError> {
    json::apply(base, patch)
}

/// Applies a JSON merge patch: `null` removes, objects merge, everything else replaces.
pub fn merge_patch(base: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::BadRequest(
            "json: cannot unmarshal the patch into Go value of type map[string]interface {}"
                .to_owned(),
        ));
    }
    let mut object = base.clone();
    json_patch::merge(&mut object, patch);
    Ok(object)
}

/// Applies a strategic merge patch to an object of the message's type.
pub fn strategic_merge(
    message: &'static crate::schema::Message,
    base: &Value,
    patch: Value,
) -> Result<Value, PatchError> {
    strategic::apply(message, base, patch)
}

/// A value as JSON, cut to a readable length; no more than that is ever written.
fn beginning(value: &Value) -> String {
    const LONGEST: usize = 10 * 1024;
    struct Beginning(Vec<u8>);

    impl std::io::Write for Beginning {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let room = LONGEST.saturating_sub(self.0.len());
            if room == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
            Ok(bytes.len().min(room))
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut written = Beginning(Vec::new());
    let cut = serde_json::to_writer(&mut written, value).is_err();
    let mut text = String::from_utf8_lossy(&written.0).into_owned();
    if cut {
        text = text.trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned();
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests;
