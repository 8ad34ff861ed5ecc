//! From JSON to protobuf.
//!
//! Takes values that have passed the schema check; a value that does not fit its field, which the
//! check would have refused, is left out.

use super::super::scalar;
use super::MAGIC;
use super::bytes::{put_bytes, put_double, put_int};
use crate::schema::{Cardinality, Field, FieldType, Message, Shape};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

/// Puts the envelope around an object's bytes.
pub(in super::super) fn seal(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::new();
    put_bytes(&mut type_meta, 1, api_version.as_bytes());
    put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = MAGIC.to_vec();
    put_bytes(&mut out, 1, &type_meta);
    put_bytes(&mut out, 2, raw);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

/// The protobuf form of a message.
pub(in super::super) fn encode(message: &'static Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match message.shape {
        Shape::Object => {
            for field in &message.fields {
                put_field(&mut out, field, value);
            }
        }
        Shape::Time | Shape::MicroTime => {
            if let Some(time) = value.as_str().and_then(scalar::parse_time) {
                put_int(&mut out, 1, time.as_second());
                put_int(&mut out, 2, i64::from(time.subsec_nanosecond()));
            }
        }
        Shape::Quantity => put_bytes(&mut out, 1, value.as_str().unwrap_or("0").as_bytes()),
        Shape::IntOrString => match value {
            Value::String(text) => {
                put_int(&mut out, 1, 1);
                put_bytes(&mut out, 3, text.as_bytes());
            }
            other => {
                put_int(&mut out, 1, 0);
                put_int(&mut out, 2, other.as_i64().unwrap_or_default());
            }
        },
        Shape::Raw | Shape::Json => put_bytes(&mut out, 1, value.to_string().as_bytes()),
        Shape::Strings => {
            for text in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
                put_bytes(&mut out, 1, text.as_bytes());
            }
        }
        Shape::SchemaOrBool | Shape::SchemaOrArray | Shape::SchemaOrStrings => {
            put_alternative(&mut out, message, value);
        }
    }
    out
}

/// `holder` is the object that has the field, or, for an inline field, the fields of it.
fn put_field(out: &mut Vec<u8>, field: &'static Field, holder: &Value) {
    if let (true, Some(embedded)) = (field.inline, field.message()) {
        put_bytes(out, field.number, &encode(embedded, holder));
        return;
    }
    let Some(value) = holder.get(field.name).filter(|value| !value.is_null()) else { return };
    match (field.cardinality, value) {
        (Cardinality::Single, value) => put_single(out, field, field.number, value),
        (Cardinality::Repeated, Value::Array(list)) => {
            for entry in list {
                put_single(out, field, field.number, entry);
            }
        }
        (Cardinality::Map, Value::Object(map)) => {
            for (key, value) in map {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                put_single(&mut entry, field, 2, value);
                put_bytes(out, field.number, &entry);
            }
        }
        _ => {}
    }
}

fn put_single(out: &mut Vec<u8>, field: &'static Field, number: u32, value: &Value) {
    match (field.kind, value) {
        (FieldType::String, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
        (FieldType::Bytes, Value::String(text)) => {
            put_bytes(out, number, &STANDARD.decode(text.as_bytes()).unwrap_or_default());
        }
        (FieldType::Int32 | FieldType::Int64, Value::Number(value)) => {
            put_int(out, number, scalar::integer(value).unwrap_or_default());
        }
        (FieldType::Bool, Value::Bool(value)) => put_int(out, number, i64::from(*value)),
        (FieldType::Double, Value::Number(value)) => {
            put_double(out, number, value.as_f64().unwrap_or_default());
        }
        (FieldType::Message(_), value) => {
            if let Some(message) = field.message() {
                put_bytes(out, number, &encode(message, value));
            }
        }
        _ => {}
    }
}

/// A schema goes under the message's single schema field, a list under its repeated one.
fn put_alternative(out: &mut Vec<u8>, message: &'static Message, value: &Value) {
    let of = |cardinality, holds_messages: bool| {
        message.fields.iter().find(move |field| {
            field.cardinality == cardinality && (!holds_messages || field.message().is_some())
        })
    };
    let allows = message.fields.iter().find(|field| field.kind == FieldType::Bool);
    let (field, values) = match value {
        Value::Bool(_) => (allows, std::slice::from_ref(value)),
        Value::Array(list) => (of(Cardinality::Repeated, false), list.as_slice()),
        schema => {
            if let Some(allows) = allows {
                put_int(out, allows.number, 1);
            }
            (of(Cardinality::Single, true), std::slice::from_ref(schema))
        }
    };
    if let Some(field) = field {
        for value in values {
            put_single(out, field, field.number, value);
        }
    }
}
