//! Walks a value along its schema: types must fit, unknown fields are dropped and reported.
//!
//! The first wrong type ends the walk, with the words of Go's decoder; unknown fields are
//! collected. `null` means absent for a field and zero inside lists and maps, as in Go.
//! Quantities come out canonical and times in UTC, and what Go would not write again (empty text, lists and maps that are
//! not required) is left out, so that one object has one form whichever way it came.

use super::reported::Reported;
use super::scalar;
use crate::quantity::canonical;
use crate::schema::{Cardinality, Field, FieldType, Message, Shape};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use std::fmt::Write;
use thiserror::Error;

/// What is wrong inside an object, in Go's words and without naming the object.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct WrongFields(pub String);

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Paths of the fields that were dropped.
    pub unknown: Vec<String>,
}

/// Checks `value` in place.
pub(super) fn check(message: &'static Message, value: &mut Value) -> Result<Checked, WrongFields> {
    let mut walk = Walk { path: String::new(), fields: Vec::new(), unknown: Reported::default() };
    walk.message(message, value, None)?;
    Ok(Checked { unknown: walk.unknown.into_paths() })
}

/// Go's word for the type of a JSON value.
pub(super) fn go_kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

struct Walk {
    path: String,
    fields: Vec<&'static str>,
    unknown: Reported,
}

impl Walk {
    fn wrong(&self, within: Option<&'static Message>, found: &str, wanted: &str) -> WrongFields {
        WrongFields(match within {
            Some(message) => format!(
                "json: cannot unmarshal {found} into Go struct field {}.{} of type {wanted}",
                message.go_name(),
                self.fields.join(".")
            ),
            None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
        })
    }

    /// A value whose type is a message; `within` is the message that holds it.
    fn message(
        &mut self,
        message: &'static Message,
        value: &mut Value,
        within: Option<&'static Message>,
    ) -> Result<(), WrongFields> {
        match message.shape {
            Shape::Object => match value {
                Value::Object(map) => self.object(message, map),
                other => Err(self.wrong(within, &go_kind(other), &go_message(message))),
            },
            Shape::Time | Shape::MicroTime => {
                self.time(message.shape == Shape::MicroTime, value, within)
            }
            Shape::Quantity => quantity(value),
            Shape::IntOrString => match value {
                Value::String(_) => Ok(()),
                other => self.scalar(FieldType::Int32, other, within),
            },
            Shape::Raw => match value {
                Value::Object(_) => Ok(()),
                other => Err(self.wrong(within, &go_kind(other), "map[string]interface {}")),
            },
            Shape::Json => Ok(()),
            Shape::Strings => self.list(value, within, "[]string", |walk, entry| {
                walk.scalar(FieldType::String, entry, within)
            }),
            Shape::SchemaOrBool => match value {
                Value::Bool(_) => Ok(()),
                other => self.schema(message, other, within),
            },
            Shape::SchemaOrArray => match value {
                Value::Array(_) => {
                    self.list(value, within, "[]v1.JSONSchemaProps", |walk, entry| {
                        walk.schema(message, entry, within)
                    })
                }
                other => self.schema(message, other, within),
            },
            Shape::SchemaOrStrings => match value {
                Value::Array(_) => self.list(value, within, "[]string", |walk, entry| {
                    walk.scalar(FieldType::String, entry, within)
                }),
                other => self.schema(message, other, within),
            },
        }
    }

    /// The schema inside one of the "schema or …" messages.
    fn schema(
        &mut self,
        message: &'static Message,
        value: &mut Value,
        within: Option<&'static Message>,
    ) -> Result<(), WrongFields> {
        match message.fields.iter().find_map(Field::message) {
            Some(inner) => self.message(inner, value, within),
            None => Ok(()),
        }
    }

    fn object(
        &mut self,
        message: &'static Message,
        map: &mut Map<String, Value>,
    ) -> Result<(), WrongFields> {
        let mut result = Ok(());
        map.retain(|name, value| {
            if result.is_err() {
                return true;
            }
            match self.member(message, name, value) {
                Ok(keep) => keep,
                Err(error) => {
                    result = Err(error);
                    true
                }
            }
        });
        result
    }

    /// One member of an object; whether it stays.
    fn member(
        &mut self,
        message: &'static Message,
        name: &str,
        value: &mut Value,
    ) -> Result<bool, WrongFields> {
        let here = self.path.len();
        if here > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let kept = match message.field(name) {
            Some(_) if value.is_null() => Ok(false),
            Some(field) => {
                self.fields.push(field.name);
                let outcome = self.field(message, field, value);
                self.fields.pop();
                outcome.map(|()| !omitted(field, value))
            }
            None if (name == "kind" || name == "apiVersion") && message.is_kind() => {
                if value.is_string() {
                    Ok(true)
                } else {
                    self.fields.push(if name == "kind" { "kind" } else { "apiVersion" });
                    let error = self.wrong(Some(message), &go_kind(value), "string");
                    self.fields.pop();
                    if value.is_null() { Ok(false) } else { Err(error) }
                }
            }
            None => {
                self.unknown.add(&self.path);
                Ok(false)
            }
        };
        self.path.truncate(here);
        kept
    }

    fn field(
        &mut self,
        message: &'static Message,
        field: &'static Field,
        value: &mut Value,
    ) -> Result<(), WrongFields> {
        let within = Some(message);
        match field.cardinality {
            Cardinality::Single => self.single(field, value, within),
            Cardinality::Repeated => {
                let wanted = format!("[]{}", go_type(field));
                self.list(value, within, &wanted, |walk, entry| walk.single(field, entry, within))
            }
            Cardinality::Map => {
                let Value::Object(map) = value else {
                    return Err(self.wrong(
                        within,
                        &go_kind(value),
                        &format!("map[string]{}", go_type(field)),
                    ));
                };
                for (key, entry) in map.iter_mut() {
                    let here = self.path.len();
                    self.path.push('.');
                    self.path.push_str(key);
                    if entry.is_null() {
                        *entry = zero(field);
                    }
                    let outcome = self.single(field, entry, within);
                    self.path.truncate(here);
                    outcome?;
                }
                Ok(())
            }
        }
    }

    fn list(
        &mut self,
        value: &mut Value,
        within: Option<&'static Message>,
        wanted: &str,
        mut each: impl FnMut(&mut Self, &mut Value) -> Result<(), WrongFields>,
    ) -> Result<(), WrongFields> {
        let Value::Array(list) = value else {
            return Err(self.wrong(within, &go_kind(value), wanted));
        };
        for (at, entry) in list.iter_mut().enumerate() {
            let here = self.path.len();
            let _ = write!(self.path, "[{at}]"); // writing to a string cannot fail
            let outcome = each(self, entry);
            self.path.truncate(here);
            outcome?;
        }
        Ok(())
    }

    fn single(
        &mut self,
        field: &'static Field,
        value: &mut Value,
        within: Option<&'static Message>,
    ) -> Result<(), WrongFields> {
        if value.is_null() {
            *value = zero(field);
        }
        match field.message() {
            Some(message) => self.message(message, value, within),
            None => self.scalar(field.kind, value, within),
        }
    }

    fn scalar(
        &self,
        kind: FieldType,
        value: &Value,
        within: Option<&'static Message>,
    ) -> Result<(), WrongFields> {
        let fits = match (kind, value) {
            (FieldType::String, Value::String(_))
            | (FieldType::Bool, Value::Bool(_))
            | (FieldType::Double, Value::Number(_)) => true,
            (FieldType::Bytes, Value::String(text)) => {
                if STANDARD.decode(text.as_bytes()).is_err() {
                    return Err(WrongFields(format!(
                        "illegal base64 data in field {:?}",
                        self.path
                    )));
                }
                true
            }
            (FieldType::Int32, Value::Number(number)) => {
                if scalar::integer(number).is_none_or(|number| i32::try_from(number).is_err()) {
                    return Err(self.wrong(within, &format!("number {number}"), go_scalar(kind)));
                }
                true
            }
            (FieldType::Int64, Value::Number(number)) => {
                if scalar::integer(number).is_none() {
                    return Err(self.wrong(within, &format!("number {number}"), go_scalar(kind)));
                }
                true
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(self.wrong(within, &go_kind(value), go_scalar(kind))) }
    }

    fn time(
        &self,
        micro: bool,
        value: &mut Value,
        within: Option<&'static Message>,
    ) -> Result<(), WrongFields> {
        let Value::String(text) = value else {
            return Err(self.wrong(within, &go_kind(value), "string"));
        };
        let Some(time) = scalar::parse_time(text) else {
            let layout = if micro {
                "2006-01-02T15:04:05.000000Z07:00"
            } else {
                "2006-01-02T15:04:05Z07:00"
            };
            return Err(WrongFields(format!(
                "parsing time {text:?} as {layout:?}: cannot parse {text:?} as {layout:?}"
            )));
        };
        *text = scalar::format_time(time, micro);
        Ok(())
    }
}

fn quantity(value: &mut Value) -> Result<(), WrongFields> {
    match canonical(value) {
        Some(text) => {
            *value = text.into();
            Ok(())
        }
        None => Err(WrongFields(
            "quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                .to_owned(),
        )),
    }
}

/// Whether Go leaves the field out when it writes the object again.
fn omitted(field: &'static Field, value: &Value) -> bool {
    let empty = match field.cardinality {
        Cardinality::Single => field.zero_is_absent && scalar::is_zero(value),
        Cardinality::Repeated => value.as_array().is_some_and(Vec::is_empty),
        Cardinality::Map => value.as_object().is_some_and(Map::is_empty),
    };
    empty && !field.required
}

/// What Go makes of `null` inside a list or map.
fn zero(field: &'static Field) -> Value {
    match (field.kind, field.message().map(|message| message.shape)) {
        (FieldType::Int32 | FieldType::Int64 | FieldType::Double, _)
        | (_, Some(Shape::IntOrString)) => 0.into(),
        (FieldType::Bool, _) => false.into(),
        (FieldType::String | FieldType::Bytes, _) => "".into(),
        (_, Some(Shape::Quantity)) => "0".into(),
        (_, Some(Shape::Strings)) => Value::Array(Vec::new()),
        (_, Some(Shape::Time | Shape::MicroTime)) => "0001-01-01T00:00:00Z".into(),
        (_, Some(Shape::Json)) => Value::Null,
        _ => Value::Object(Map::new()),
    }
}

fn go_type(field: &'static Field) -> String {
    field.message().map_or_else(|| go_scalar(field.kind).to_owned(), go_message)
}

fn go_message(message: &'static Message) -> String {
    format!("{}.{}", message.go_package(), message.go_name())
}

fn go_scalar(kind: FieldType) -> &'static str {
    match kind {
        FieldType::String => "string",
        FieldType::Int32 => "int32",
        FieldType::Int64 => "int64",
        FieldType::Bool => "bool",
        FieldType::Double => "float64",
        FieldType::Bytes => "[]uint8",
        FieldType::Message(_) => "struct",
    }
}
