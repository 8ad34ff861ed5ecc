//! Bodies in and out: JSON, YAML and Kubernetes protobuf, checked against the schema.
//!
//! [`decode`] turns a body into the JSON object that everything else works on. It bounds size,
//! depth and aliases before it builds anything, refuses wrong types with the words of Go's
//! decoder, and reports unknown and duplicate fields as [`FieldValidation`] asks; unknown fields
//! are always dropped. [`encode`] writes answers.

mod check;
mod document;
mod media_type;
mod protobuf;
mod reported;
mod scalar;
mod structural;
mod yaml;

use crate::dynamic::Looks;
use crate::schema::{self, Message};
use serde_json::Value;
use std::fmt;
use thiserror::Error;

pub use check::{Checked, WrongFields};
pub use document::MAX_DEPTH;
pub use media_type::{APPLY_YAML, JSON, PROTOBUF, YAML};

use media_type::media_type;

/// Bodies beyond this are refused unread.
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// What becomes of fields that the schema does not know, and of fields said twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// The body is refused.
    Strict,
    /// The answer carries a warning for each.
    #[default]
    Warn,
    /// Nothing is said.
    Ignore,
}

impl FieldValidation {
    /// Reads the query parameter `fieldValidation`; an empty one means [`Self::Warn`].
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Strict" => Some(Self::Strict),
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            _ => None,
        }
    }
}

/// The kind that a body is expected to be.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The API group, empty for the core group.
    pub group: &'a str,
    /// The version within the group.
    pub version: &'a str,
    /// The kind.
    pub kind: &'a str,
    /// What objects of the kind look like.
    pub looks: Looks<'a>,
}

impl<'a> Target<'a> {
    /// The target for a kind that the schema tables know.
    pub fn of(group: &'a str, version: &'a str, kind: &'a str) -> Option<Self> {
        let message = schema::for_kind(group, version, kind)?;
        Some(Self { group, version, kind, looks: Looks::Table(message) })
    }

    /// `v1`, `batch/v1`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// A body that could be read, or an object that was looked at as one: its fields have the types that its kind's have. Only
/// this module and [`patch`](crate::patch) make one, so that whoever has it need not look again.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decoded {
    /// The object, with kind and apiVersion, without unknown fields.
    pub object: Value,
    /// What the client should be told.
    pub warnings: Vec<String>,
}

/// Why a body was not taken. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body is in a form that we do not read.
    #[error(
        "the body of the request was in an unknown format - accepted media types include: {JSON}, {YAML}, {PROTOBUF}"
    )]
    MediaType,

    /// The body is in a form that is not read for kinds without a message in the tables.
    #[error(
        "the body of the request was in an unknown format - accepted media types include: {JSON}, {YAML}"
    )]
    NoProtobuf,

    /// The body is too large to be read.
    #[error("Request entity too large: limit is {MAX_BODY_BYTES}")]
    TooLarge,

    /// The body is no document at all.
    #[error(
        "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; {why}"
    )]
    Malformed {
        /// The expected kind.
        kind: String,
        /// What stands where.
        why: String,
    },

    /// The body is of another kind or version.
    #[error("{0}")]
    Kind(String),

    /// A field has a value of another type, or is unknown, or doubled, where that is refused.
    #[error("{kind} in version {version:?} cannot be handled as a {kind}: {why}")]
    Fields {
        /// The kind of the body.
        kind: String,
        /// Its apiVersion.
        version: String,
        /// Go's words for what is wrong.
        why: String,
    },
}

impl DecodeError {
    /// The HTTP status that says this.
    pub fn code(&self) -> u16 {
        match self {
            Self::MediaType | Self::NoProtobuf => 415,
            Self::TooLarge => 413,
            Self::Malformed { .. } | Self::Kind(_) | Self::Fields { .. } => 400,
        }
    }
}

/// Reads a body of the expected kind.
///
/// Kind and apiVersion may be missing, as in Kubernetes; they are filled in.
pub fn decode(
    target: Target<'_>,
    content_type: &str,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(DecodeError::TooLarge);
    }
    let malformed = |why: String| DecodeError::Malformed { kind: target.kind.to_owned(), why };
    let (mut object, duplicates) = match media_type(content_type).as_str() {
        "" | JSON => document::from_json(body).map_err(malformed)?.into_parts(),
        YAML | APPLY_YAML => yaml::from_yaml(body).map_err(malformed)?.into_parts(),
        PROTOBUF => {
            let message = target.looks.message().ok_or(DecodeError::NoProtobuf)?;
            (read_envelope(target, message, body)?, Vec::new())
        }
        _ if target.looks.message().is_none() => return Err(DecodeError::NoProtobuf),
        _ => return Err(DecodeError::MediaType),
    };
    identify(target, &mut object)?;
    let fields = |why: String| DecodeError::Fields {
        kind: target.kind.to_owned(),
        version: target.api_version(),
        why,
    };
    let warnings = check(target.looks, &mut object, duplicates, validation)
        .map_err(|wrong| fields(wrong.0))?;
    Ok(Decoded { object, warnings })
}

/// Checks an object that is JSON already, such as the outcome of a patch, and drops what the
/// schema does not know. Gives the warnings.
pub fn check(
    looks: Looks<'_>,
    object: &mut Value,
    duplicates: Vec<String>,
    validation: FieldValidation,
) -> Result<Vec<String>, WrongFields> {
    let unknown = match looks {
        Looks::Table(message) => check::check(message, object)?.unknown,
        Looks::Structural(schema) => {
            structural::check(schema, object, validation != FieldValidation::Ignore)?
        }
    };
    let mut found: Vec<String> =
        unknown.into_iter().map(|path| format!("unknown field {path:?}")).collect();
    found.extend(duplicates.into_iter().map(|path| format!("duplicate field {path:?}")));
    match validation {
        FieldValidation::Strict if !found.is_empty() => {
            Err(WrongFields(format!("strict decoding error: {}", found.join(", "))))
        }
        FieldValidation::Warn => Ok(found),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
    }
}

/// An object that this program has made itself, looked at as one that comes in: what nobody else could read is not stored,
/// whoever made it.
pub fn decoded(target: Target<'_>, mut object: Value) -> Result<Decoded, DecodeError> {
    identify(target, &mut object)?;
    let checked = check(target.looks, &mut object, Vec::new(), FieldValidation::Ignore);
    let warnings = checked.map_err(|wrong| DecodeError::Fields {
        kind: target.kind.to_owned(),
        version: target.api_version(),
        why: wrong.0,
    })?;
    Ok(Decoded { object, warnings })
}

/// Reads what is to be applied to an object of the expected kind, as YAML or JSON. Its types are checked, but it is given
/// as it came: who applies what is empty owns that. Fields that are not known are not looked for here; what is said
/// twice is told as [`FieldValidation`] asks.
pub fn applied(
    target: Target<'_>,
    body: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), DecodeError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(DecodeError::TooLarge);
    }
    let malformed = |why: String| DecodeError::Malformed { kind: target.kind.to_owned(), why };
    // Most programs send JSON, which is read faster as what it is.
    let is_json = body.trim_ascii_start().starts_with(b"{");
    let json = if is_json { document::from_json(body).ok() } else { None };
    let document = json.map_or_else(|| yaml::from_yaml(body), Ok).map_err(malformed)?;
    let (object, duplicates) = document.into_parts();
    let mut looked_at = object.clone();
    let warnings = identify(target, &mut looked_at).and_then(|()| {
        let checked = check(target.looks, &mut looked_at, Vec::new(), FieldValidation::Ignore);
        let warnings = checked.and_then(|_| doubled(duplicates, validation));
        warnings.map_err(|wrong| DecodeError::Fields {
            kind: target.kind.to_owned(),
            version: target.api_version(),
            why: wrong.0,
        })
    })?;
    Ok((object, warnings))
}

/// What is told of fields that are said twice.
fn doubled(
    duplicates: Vec<String>,
    validation: FieldValidation,
) -> Result<Vec<String>, WrongFields> {
    let found: Vec<_> =
        duplicates.into_iter().map(|path| format!("duplicate field {path:?}")).collect();
    match validation {
        FieldValidation::Strict if !found.is_empty() => {
            Err(WrongFields(format!("strict decoding error: {}", found.join(", "))))
        }
        FieldValidation::Warn => Ok(found),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
    }
}

/// Reads a JSON or YAML document without a schema, within the limits of [`decode`].
pub fn parse(content_type: &str, body: &[u8]) -> Result<Value, DecodeError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(DecodeError::TooLarge);
    }
    let yaml = media_type(content_type).ends_with("yaml");
    let document = if yaml { yaml::from_yaml(body) } else { document::from_json(body) };
    document
        .map(|document| document.into_parts().0)
        .map_err(|why| DecodeError::Malformed { kind: "object".to_owned(), why })
}

/// Reads all documents of a YAML or JSON manifest, without a schema; empty ones are left out.
pub fn parse_manifest(text: &str) -> Result<Vec<Value>, DecodeError> {
    if text.len() > MAX_BODY_BYTES {
        return Err(DecodeError::TooLarge);
    }
    let documents = yaml::documents(text, usize::MAX)
        .map_err(|why| DecodeError::Malformed { kind: "object".to_owned(), why })?;
    let values = documents.into_iter().map(|document| document.into_parts().0);
    Ok(values.filter(|value| !value.is_null()).collect())
}

/// Writes an object as JSON, YAML or protobuf; `None` for a media type that we do not write.
///
/// Protobuf is written for kinds that the tables know.
pub fn encode(content_type: &str, object: &Value) -> Option<Vec<u8>> {
    match media_type(content_type).as_str() {
        "" | JSON => serde_json::to_vec(object).ok(),
        YAML => serde_saphyr::to_string(object).ok().map(String::into_bytes),
        PROTOBUF => {
            let (api_version, kind) = (text(object, "apiVersion"), text(object, "kind"));
            let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
            let message = schema::for_kind(group, version, kind)?;
            Some(protobuf::seal(api_version, kind, &protobuf::encode(message, object)))
        }
        _ => None,
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn read_envelope(
    target: Target<'_>,
    message: &'static Message,
    body: &[u8],
) -> Result<Value, DecodeError> {
    let malformed = |why: fmt::Arguments<'_>| DecodeError::Malformed {
        kind: target.kind.to_owned(),
        why: why.to_string(),
    };
    let envelope = protobuf::open(body).map_err(|why| malformed(format_args!("{why}")))?;
    if !envelope.kind.is_empty() && envelope.kind != target.kind {
        return Err(other_kind(target, envelope.api_version, envelope.kind));
    }
    let mut object =
        protobuf::decode(message, envelope.raw).map_err(|why| malformed(format_args!("{why}")))?;
    if let Value::Object(map) = &mut object {
        if !envelope.api_version.is_empty() {
            map.insert("apiVersion".to_owned(), envelope.api_version.into());
        }
        if !envelope.kind.is_empty() {
            map.insert("kind".to_owned(), envelope.kind.into());
        }
    }
    Ok(object)
}

/// Fills in kind and apiVersion, or says that they are others than expected.
fn identify(target: Target<'_>, object: &mut Value) -> Result<(), DecodeError> {
    let Value::Object(map) = object else {
        return Err(DecodeError::Malformed {
            kind: target.kind.to_owned(),
            why: format!(
                "json parse error: json: cannot unmarshal {} into Go value of type struct",
                check::go_kind(object)
            ),
        });
    };
    let mut said = [("apiVersion", String::new()), ("kind", String::new())];
    for (field, value) in &mut said {
        match map.get(*field) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => value.clone_from(text),
            Some(other) => {
                return Err(DecodeError::Malformed {
                    kind: target.kind.to_owned(),
                    why: format!(
                        "json parse error: json: cannot unmarshal {} into Go struct field .{field} of type string",
                        check::go_kind(other)
                    ),
                });
            }
        }
    }
    let [(_, api_version), (_, kind)] = said;
    let expected = target.api_version();
    let machinery = target.looks.message().is_some_and(|it| it.name.starts_with("apimachinery."));
    if !kind.is_empty() && kind != target.kind {
        return Err(other_kind(target, &api_version, &kind));
    }
    if !api_version.is_empty() && api_version != expected && !machinery {
        return Err(DecodeError::Kind(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )));
    }
    map.insert("kind".to_owned(), target.kind.into());
    if api_version.is_empty() {
        map.insert("apiVersion".to_owned(), expected.into());
    }
    Ok(())
}

fn other_kind(target: Target<'_>, api_version: &str, kind: &str) -> DecodeError {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if schema::for_kind(group, version, kind).is_none() {
        return DecodeError::Kind(format!(
            "no kind {kind:?} is registered for version {api_version:?}"
        ));
    }
    let expected = target.kind;
    DecodeError::Kind(format!(
        "{kind} in version {api_version:?} cannot be handled as a {expected}: the kind of the object does not match the address that it was sent to"
    ))
}

#[cfg(test)]
mod tests;
