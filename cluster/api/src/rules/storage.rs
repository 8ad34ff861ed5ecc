//! What volumes, claims and classes of storage share.

use crate::field::{Causes, Path, entries, get, list, text};
use crate::names;
use crate::table::or_unset;
use serde_json::Value;

/// How a volume may be mounted, in the order in which tables tell it, with the short names of tables.
pub const ACCESS_MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];
/// Most parameters of a class, and most bytes of all of them.
const PARAMETERS_MAX: (usize, usize) = (512, 256 * 1024);

/// The access modes of a volume or a claim: some, known, and the one for a single pod alone.
pub fn access_modes(spec: &Value, path: &Path, causes: &mut Causes) {
    let (path, modes) = (path.child("accessModes"), list(spec, "accessModes"));
    if modes.is_empty() {
        causes.required(&path, "at least 1 access mode is required");
    }
    let known = ACCESS_MODES.map(|(mode, _)| mode);
    for mode in modes.iter().filter_map(Value::as_str) {
        if causes.is_full() {
            return;
        }
        if !known.contains(&mode) {
            causes.not_supported(&path, mode, &known);
        }
    }
    let others = modes.iter().any(|mode| mode != "ReadWriteOncePod");
    if others && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let why = "may not use ReadWriteOncePod with other access modes";
        causes.forbidden(&path, why);
    }
}

/// Access modes as tables tell them.
pub fn access_modes_cell(object: &Value, field: &str) -> Value {
    let given = list(object, field);
    let told = ACCESS_MODES.iter().filter(|(mode, _)| given.iter().any(|one| one == mode));
    told.map(|(_, short)| *short).collect::<Vec<_>>().join(",").into()
}

/// The name of a class of attributes in a table.
pub fn attributes_class_cell(object: &Value) -> Value {
    or_unset(text(object, "spec.volumeAttributesClassName"))
}

/// The name of a class, where one is given.
pub fn class_name(spec: &Value, field: &str, path: &Path, causes: &mut Causes) {
    let name = text(spec, field);
    if !name.is_empty() {
        causes.invalid_all(&path.child(field), name, names::dns_subdomain(name));
    }
}

/// The parameters of a class.
pub fn parameters(class: &Value, causes: &mut Causes) {
    let path = Path::new("parameters");
    let (mut count, mut size) = (0, 0);
    for (key, value) in entries(class, "parameters") {
        if key.is_empty() {
            causes.invalid(&path, key, "field can not be empty.");
        }
        count += 1;
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if count > PARAMETERS_MAX.0 {
        causes.too_many(&path, count, PARAMETERS_MAX.0);
    }
    if size > PARAMETERS_MAX.1 {
        causes.too_long(&path, PARAMETERS_MAX.1);
    }
}

/// The name of a driver.
pub fn driver_name(name: &str, path: &Path, causes: &mut Causes) {
    if name.is_empty() {
        causes.required(path, "");
        return;
    }
    if name.len() > names::LABEL_MAX {
        causes.too_long(path, names::LABEL_MAX);
    }
    causes.invalid_all(path, name, names::dns_subdomain(&name.to_lowercase()));
}

/// Fields that stay as they are, in the words of classes.
pub fn not_updated(new: &Value, old: &Value, fields: &[&str], causes: &mut Causes) {
    for field in fields {
        if !crate::field::same(get(new, field), crate::field::at(old, field)) {
            causes.forbidden(&Path::new(field), &format!("updates to {field} are forbidden."));
        }
    }
}
