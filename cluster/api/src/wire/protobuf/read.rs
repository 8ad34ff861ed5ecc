//! From protobuf to JSON.

use super::super::document::{self, Allowance, MAX_DEPTH, entry_cost, value_cost};
use super::super::media_type::PROTOBUF;
use super::super::scalar;
use super::bytes::{Cursor, Wire};
use super::{Envelope, MAGIC, ProtobufError};
use crate::schema::{Cardinality, Field, FieldType, Message, Shape};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

/// Opens the envelope around an object.
pub(in super::super) fn open(body: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let mut unknown = Cursor(body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?);
    let mut envelope = Envelope { api_version: "", kind: "", raw: &[] };
    while let Some((number, value)) = unknown.next()? {
        match (number, value) {
            (1, Wire::Bytes(type_meta)) => {
                let mut type_meta = Cursor(type_meta);
                while let Some((number, value)) = type_meta.next()? {
                    match (number, value) {
                        (1, Wire::Bytes(text)) => envelope.api_version = utf8("apiVersion", text)?,
                        (2, Wire::Bytes(text)) => envelope.kind = utf8("kind", text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => envelope.raw = raw,
            (3, Wire::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(ProtobufError::Encoded(String::from_utf8_lossy(encoding).into_owned()));
            }
            (4, Wire::Bytes(kind)) if !kind.is_empty() && kind != PROTOBUF.as_bytes() => {
                return Err(ProtobufError::Encoded(String::from_utf8_lossy(kind).into_owned()));
            }
            _ => {}
        }
    }
    Ok(envelope)
}

/// The JSON form of a message.
pub(in super::super) fn decode(
    message: &'static Message,
    bytes: &[u8],
) -> Result<Value, ProtobufError> {
    let mut map = Map::new();
    let mut left = Allowance::full();
    fill(message, bytes, &mut map, &mut Limits { depth: 0, left: &mut left })?;
    Ok(Value::Object(map))
}

/// How deep the reader is, and how much it may still make: two bytes can be a message.
struct Limits<'a> {
    depth: usize,
    left: &'a mut Allowance,
}

impl Limits<'_> {
    fn deeper(&mut self) -> Limits<'_> {
        Limits { depth: self.depth + 1, left: self.left }
    }

    /// Accounts for one value of a field.
    fn spend(&mut self, field: &'static Field) -> Result<(), ProtobufError> {
        if self.depth >= MAX_DEPTH {
            return Err(ProtobufError::Depth(field.name));
        }
        let bytes = match field.cardinality {
            Cardinality::Repeated => value_cost(),
            Cardinality::Single | Cardinality::Map => entry_cost(field.name.len()),
        };
        self.left.spend(bytes).map_err(|_| ProtobufError::Large(field.name))
    }
}

fn fill(
    message: &'static Message,
    bytes: &[u8],
    map: &mut Map<String, Value>,
    limits: &mut Limits<'_>,
) -> Result<(), ProtobufError> {
    let mut cursor = Cursor(bytes);
    while let Some((number, wire)) = cursor.next()? {
        let Some(field) = message.numbered(number) else { continue };
        limits.spend(field)?;
        match field.cardinality {
            Cardinality::Single => {
                if let (true, Some(embedded)) = (field.inline, field.message()) {
                    fill(embedded, bytes_of(field, wire)?, map, &mut limits.deeper())?;
                } else if let Some(value) = single(field, wire, limits)? {
                    let unset = field.zero_is_absent && !field.required && scalar::is_zero(&value);
                    if !unset {
                        map.insert(field.name.to_owned(), value);
                    }
                }
            }
            Cardinality::Repeated => {
                let list = map.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { continue };
                match (field.kind, wire) {
                    (
                        FieldType::Int32 | FieldType::Int64 | FieldType::Bool,
                        Wire::Bytes(packed),
                    ) => {
                        let mut packed = Cursor(packed);
                        while !packed.0.is_empty() {
                            limits.spend(field)?;
                            list.extend(single(field, Wire::Varint(packed.varint()?), limits)?);
                        }
                    }
                    _ => list.push(single(field, wire, limits)?.unwrap_or(Value::Null)),
                }
            }
            Cardinality::Map => {
                let (key, value) = entry(field, bytes_of(field, wire)?, limits)?;
                let entries = map.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(entries) = entries {
                    entries.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

fn entry(
    field: &'static Field,
    bytes: &[u8],
    limits: &mut Limits<'_>,
) -> Result<(String, Value), ProtobufError> {
    let mut cursor = Cursor(bytes);
    let (mut key, mut value) = (String::new(), None);
    while let Some((number, wire)) = cursor.next()? {
        match number {
            1 => utf8(field.name, bytes_of(field, wire)?)?.clone_into(&mut key),
            2 => value = single(field, wire, limits)?,
            _ => {}
        }
    }
    let value = match value {
        Some(value) => value,
        None => single(field, empty(field), limits)?.unwrap_or(Value::Null),
    };
    Ok((key, value))
}

/// What stands for a map entry's value that was not written.
fn empty(field: &'static Field) -> Wire<'static> {
    match field.kind {
        FieldType::Int32 | FieldType::Int64 | FieldType::Bool => Wire::Varint(0),
        FieldType::Double => Wire::Fixed64(0),
        FieldType::String | FieldType::Bytes | FieldType::Message(_) => Wire::Bytes(&[]),
    }
}

/// One value; `None` for a time that is not set.
fn single(
    field: &'static Field,
    wire: Wire<'_>,
    limits: &mut Limits<'_>,
) -> Result<Option<Value>, ProtobufError> {
    Ok(Some(match (field.kind, wire) {
        (FieldType::String, Wire::Bytes(text)) => utf8(field.name, text)?.into(),
        (FieldType::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (FieldType::Int32, Wire::Varint(number)) => (number as i32).into(),
        (FieldType::Int64, Wire::Varint(number)) => (number as i64).into(),
        (FieldType::Bool, Wire::Varint(number)) => (number != 0).into(),
        (FieldType::Double, Wire::Fixed64(bits)) => {
            Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number)
        }
        (FieldType::Message(_), Wire::Bytes(bytes)) => match field.message() {
            Some(message) => return embedded(field, message, bytes, &mut limits.deeper()),
            None => return Ok(None),
        },
        (_, wire) => return Err(ProtobufError::WireType { field: field.name, wire: wire.code() }),
    }))
}

fn embedded(
    field: &'static Field,
    message: &'static Message,
    bytes: &[u8],
    limits: &mut Limits<'_>,
) -> Result<Option<Value>, ProtobufError> {
    Ok(Some(match message.shape {
        Shape::Object => {
            let mut map = Map::new();
            fill(message, bytes, &mut map, limits)?;
            Value::Object(map)
        }
        Shape::Time | Shape::MicroTime => {
            return time(field, bytes, message.shape == Shape::MicroTime);
        }
        Shape::Quantity => match first(bytes)? {
            Some(text) => utf8(field.name, text)?.into(),
            None => "0".into(),
        },
        Shape::IntOrString => int_or_string(field, bytes)?,
        Shape::Raw | Shape::Json => match first(bytes)? {
            Some(raw) if !raw.is_empty() => json(field, raw, limits)?,
            _ if message.shape == Shape::Raw => Value::Object(Map::new()),
            _ => Value::Null,
        },
        Shape::Strings => Value::Array(strings(field, bytes, limits)?),
        Shape::SchemaOrBool | Shape::SchemaOrArray | Shape::SchemaOrStrings => {
            alternative(message, bytes, limits)?
        }
    }))
}

fn json(
    field: &'static Field,
    raw: &[u8],
    limits: &mut Limits<'_>,
) -> Result<Value, ProtobufError> {
    let document = document::from_json_within(raw, limits.left)
        .map_err(|why| ProtobufError::Json(field.name, why))?;
    Ok(document.into_parts().0)
}

fn time(field: &'static Field, bytes: &[u8], micro: bool) -> Result<Option<Value>, ProtobufError> {
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut cursor = Cursor(bytes);
    while let Some((number, wire)) = cursor.next()? {
        match (number, wire) {
            (1, Wire::Varint(value)) => seconds = value as i64,
            (2, Wire::Varint(value)) => nanos = value as i32,
            _ => {}
        }
    }
    let time = Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Time(field.name))?;
    Ok(Some(scalar::format_time(time, micro).into()))
}

fn int_or_string(field: &'static Field, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    let mut cursor = Cursor(bytes);
    while let Some((at, wire)) = cursor.next()? {
        match (at, wire) {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(value)) => number = value as i32,
            (3, Wire::Bytes(value)) => text = utf8(field.name, value)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// The value of field 1, where it is bytes.
fn first(bytes: &[u8]) -> Result<Option<&[u8]>, ProtobufError> {
    let mut cursor = Cursor(bytes);
    let mut found = None;
    while let Some((number, wire)) = cursor.next()? {
        if let (1, Wire::Bytes(value)) = (number, wire) {
            found = Some(value);
        }
    }
    Ok(found)
}

fn strings(
    field: &'static Field,
    bytes: &[u8],
    limits: &mut Limits<'_>,
) -> Result<Vec<Value>, ProtobufError> {
    let mut cursor = Cursor(bytes);
    let mut list = Vec::new();
    while let Some((number, wire)) = cursor.next()? {
        if let (1, Wire::Bytes(text)) = (number, wire) {
            limits.spend(field)?;
            list.push(utf8(field.name, text)?.into());
        }
    }
    Ok(list)
}

/// A schema, or the boolean, list of schemas or list of strings that may stand in its place.
fn alternative(
    message: &'static Message,
    bytes: &[u8],
    limits: &mut Limits<'_>,
) -> Result<Value, ProtobufError> {
    let mut map = Map::new();
    fill(message, bytes, &mut map, limits)?;
    let mut take = |name: &str| map.get_mut(name).map(Value::take);
    Ok(match (message.shape, take("schema")) {
        (_, Some(schema)) => schema,
        (Shape::SchemaOrBool, None) => take("allows").unwrap_or(Value::Bool(false)),
        (Shape::SchemaOrArray, None) => {
            take("jSONSchemas").unwrap_or_else(|| Value::Array(Vec::new()))
        }
        (_, None) => take("property").unwrap_or_else(|| Value::Array(Vec::new())),
    })
}

fn bytes_of<'a>(field: &'static Field, wire: Wire<'a>) -> Result<&'a [u8], ProtobufError> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        other => Err(ProtobufError::WireType { field: field.name, wire: other.code() }),
    }
}

fn utf8<'a>(field: &'static str, bytes: &'a [u8]) -> Result<&'a str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Text(field))
}
