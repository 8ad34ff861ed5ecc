//! What a version says of its other doors: status, scale, and the fields that selectors may name.

use super::json_path::JsonPath;
use crate::field::{get, has, text};
use crate::structural::findings::Findings;
use crate::structural::node::{Additional, Kind, Node};
use crate::structural::place::Place;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// How many fields selectors may name.
const MAX_SELECTABLE: usize = 8;

/// Where the scale door finds its counts, as JSON pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// The wanted count.
    pub spec: String,
    /// The counted one.
    pub status: String,
    /// The selector, as text; none where there is none.
    pub selector: Option<String>,
}

/// A field that selectors may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selectable {
    /// How they call it: `spec.color`.
    pub label: String,
    /// Where it is, as a JSON pointer.
    pub pointer: String,
}

/// Whether a version has a status door.
pub fn has_status(version: &Value) -> bool {
    has(version, "subresources.status")
}

/// Reads the scale door.
pub fn scale(version: &Value, place: &Place<'_>, findings: &mut Findings) -> Option<Scale> {
    if !has(version, "subresources.scale") {
        return None;
    }
    let scale = get(get(version, "subresources"), "scale");
    let place = place.field("scale");
    let spec = path(scale, "specReplicasPath", &[".spec."], &place, findings);
    let status = path(scale, "statusReplicasPath", &[".status."], &place, findings);
    let selector = if text(scale, "labelSelectorPath").is_empty() {
        None
    } else {
        Some(path(scale, "labelSelectorPath", &[".spec.", ".status."], &place, findings)?)
    };
    Some(Scale { spec: spec?, status: status?, selector })
}

fn path(
    scale: &Value,
    name: &str,
    under: &[&str],
    place: &Place<'_>,
    findings: &mut Findings,
) -> Option<String> {
    let given = text(scale, name);
    let place = place.field(name);
    if given.is_empty() {
        findings.required(&place, "");
        return None;
    }
    let refuse = |findings: &mut Findings, why: &str| {
        findings.invalid(&place, &json!(given), why);
        None
    };
    if !under.iter().any(|prefix| given.starts_with(prefix)) {
        let why = match under {
            [only] => format!("should be a json path under {}", only.trim_end_matches('.')),
            _ => "should be a json path under either .spec or .status".to_owned(),
        };
        return refuse(findings, &why);
    }
    match JsonPath::parse(given).map(|path| path.pointer()) {
        Ok(Some(pointer)) => Some(pointer),
        Ok(None) => refuse(findings, "only json paths without the array notation are allowed"),
        Err(why) => refuse(findings, &why),
    }
}

/// Reads the fields that selectors may name.
pub fn selectable(
    version: &Value,
    schema: &Node,
    place: &Place<'_>,
    findings: &mut Findings,
) -> Vec<Selectable> {
    let list = get(version, "selectableFields").as_array().map_or(&[][..], Vec::as_slice);
    if list.len() > MAX_SELECTABLE {
        findings.too_many(place, list.len(), MAX_SELECTABLE as u64);
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (at, field) in list.iter().enumerate() {
        let entry = place.index(at);
        let place = entry.field("jsonPath");
        let given = text(field, "jsonPath");
        if given.is_empty() {
            findings.required(&place, "");
            continue;
        }
        if !seen.insert(given) {
            findings.duplicate(&place, &json!(given));
            continue;
        }
        match one(given, schema) {
            Ok(field) => all.push(field),
            Err(why) => findings.invalid(&place, &json!(given), &why),
        }
    }
    all
}

fn one(given: &str, schema: &Node) -> Result<Selectable, String> {
    let path = JsonPath::parse(given)?;
    let fields = path.fields().filter(|fields| !fields.is_empty());
    let fields = fields.ok_or("must be a simple path without the array notation")?;
    if fields[0] == "metadata" {
        return Err("must not point to fields in metadata".to_owned());
    }
    let mut here = schema;
    for field in &fields {
        here = match (here.properties.get(*field), &here.additional) {
            (Some(property), _) => property,
            (None, Additional::Of(_) | Additional::Any | Additional::None) => {
                return Err("is an invalid path: does not refer to a valid field".to_owned());
            }
        };
    }
    if !matches!(here.kind, Some(Kind::String | Kind::Boolean | Kind::Integer)) {
        return Err("must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.".to_owned());
    }
    let pointer = path.pointer().unwrap_or_default();
    Ok(Selectable { label: fields.join("."), pointer })
}
