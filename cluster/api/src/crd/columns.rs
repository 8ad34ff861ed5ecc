//! The columns of a custom kind's table.

use super::json_path::JsonPath;
use crate::field::{get, number, text};
use crate::structural::findings::Findings;
use crate::structural::place::Place;
use crate::table;
use jiff::Timestamp;
use serde_json::{Value, json};

/// How many columns a version may have.
const MAX_COLUMNS: usize = 64;
const KINDS: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// `integer`, `number`, `string`, `boolean` or `date`.
    pub kind: String,
    /// The OpenAPI format.
    pub format: String,
    /// What it tells.
    pub description: String,
    /// 0: always shown; above: with `-o wide`.
    pub priority: i64,
    path: JsonPath,
}

/// Reads the columns of a version; where there are none, the age is one.
pub fn read(list: &Value, place: &Place<'_>, findings: &mut Findings) -> Vec<Column> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    if list.len() > MAX_COLUMNS {
        findings.too_many(place, list.len(), MAX_COLUMNS as u64);
        return Vec::new();
    }
    if list.is_empty() {
        return age();
    }
    let entries = list.iter().enumerate();
    entries.filter_map(|(at, column)| one(column, &place.index(at), findings)).collect()
}

fn age() -> Vec<Column> {
    let path = JsonPath::parse(".metadata.creationTimestamp");
    path.into_iter()
        .map(|path| Column {
            name: "Age".to_owned(),
            kind: "date".to_owned(),
            format: String::new(),
            description: "The time since the object was created.".to_owned(),
            priority: 0,
            path,
        })
        .collect()
}

fn one(column: &Value, place: &Place<'_>, findings: &mut Findings) -> Option<Column> {
    if text(column, "name").is_empty() {
        findings.required(&place.field("name"), "");
    }
    let kind = text(column, "type");
    if kind.is_empty() {
        let why = format!("must be one of {}", KINDS.join(","));
        findings.required(&place.field("type"), &why);
    } else if !KINDS.contains(&kind) {
        findings.not_supported(&place.field("type"), &json!(kind), &KINDS.map(|k| json!(k)));
    }
    let format = text(column, "format");
    if !format.is_empty() && !FORMATS.contains(&format) {
        let known = FORMATS.map(|format| json!(format));
        findings.not_supported(&place.field("format"), &json!(format), &known);
    }
    let path = text(column, "jsonPath");
    let place = place.field("jsonPath");
    if path.is_empty() {
        findings.required(&place, "");
        return None;
    }
    match JsonPath::parse(path) {
        Err(why) => {
            findings.invalid(&place, &json!(path), &why);
            None
        }
        Ok(path) => Some(Column {
            name: text(column, "name").to_owned(),
            kind: kind.to_owned(),
            format: format.to_owned(),
            description: text(column, "description").to_owned(),
            priority: number(column, "priority").unwrap_or(0),
            path,
        }),
    }
}

/// The cells of an object, the name first.
pub fn cells(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    let rest = columns.iter().map(|column| column.cell(object, now));
    std::iter::once(table::name(object)).chain(rest).collect()
}

impl Column {
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(value) = self.path.find(object).first().copied() else { return Value::Null };
        match (self.kind.as_str(), value) {
            (_, Value::Null) => Value::Null,
            ("integer", Value::Number(number)) => {
                number.as_i64().or_else(|| number.as_f64().map(|n| n as i64)).into()
            }
            ("number", Value::Number(_))
            | ("boolean", Value::Bool(_))
            | ("string", Value::String(_)) => value.clone(),
            ("date", Value::String(time)) => match time.parse::<Timestamp>() {
                Ok(_) => table::since(time, now).into(),
                Err(_) => "<invalid>".into(),
            },
            ("string", other) => other.to_string().into(),
            _ => Value::Null,
        }
    }
}

/// What is said of a version's columns.
pub fn of_version(version: &Value) -> &Value {
    get(version, "additionalPrinterColumns")
}
