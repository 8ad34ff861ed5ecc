//! Strategic merge patch, after the public description of its directives.
//!
//! Objects merge field by field. A list whose schema says `merge` merges entry by entry: objects
//! by their merge key, plain values as a set. `$patch: replace` and `delete` act on the object
//! or entry that holds them, `$retainKeys` names the only fields that stay,
//! `$setElementOrder/F` orders the list F, `$deleteFromPrimitiveList/F` takes plain values out.

use super::error::PatchError;
use super::order::{arrange, identity};
use crate::schema::{Cardinality, Field, Message};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

pub(super) const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const SET_ORDER: &str = "$setElementOrder/";
pub(super) const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

pub(super) fn apply(
    message: &'static Message,
    base: &Value,
    patch: Value,
) -> Result<Value, PatchError> {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            let mut merge = Merge { again: MOST_AGAIN };
            merge.object(base.clone(), patch, Some(message)).map(Value::Object)
        }
        _ => Err(PatchError::BadRequest("Invalid JSON document".to_owned())),
    }
}

/// What the schema says of a member: how it merges, and the schema of what is inside.
pub(super) struct Member {
    pub(super) inside: Option<&'static Message>,
    pub(super) merges: bool,
    pub(super) replaces: bool,
    pub(super) key: &'static str,
}

impl Member {
    pub(super) fn of(message: Option<&'static Message>, name: &str) -> Self {
        let field: Option<&'static Field> = message.and_then(|message| message.field(name));
        let map = field.is_some_and(|field| field.cardinality == Cardinality::Map);
        Self {
            inside: field.filter(|_| !map).and_then(Field::message),
            merges: field.is_some_and(|field| field.patch.merge),
            replaces: field.is_some_and(|field| field.patch.replace),
            key: field.map_or("", |field| field.merge_key),
        }
    }
}

/// One patch being applied.
struct Merge {
    /// How often an entry of a list may still be changed that this patch has changed before.
    again: usize,
}

/// Ports of one number and several protocols have one merge key, so that tools name an entry twice;
/// each time the whole entry is merged, with all lists in it.
const MOST_AGAIN: usize = 100;

impl Merge {
    fn object(
        &mut self,
        mut base: Object,
        mut patch: Object,
        message: Option<&'static Message>,
    ) -> Result<Object, PatchError> {
        if let Some(directive) = patch.get(DIRECTIVE).cloned() {
            return match directive.as_str() {
                Some("replace") => {
                    patch.retain(|name, _| name != DIRECTIVE);
                    Ok(patch)
                }
                Some("delete") => Ok(Object::new()),
                _ => Err(unknown_directive(&directive, &Value::Object(patch))),
            };
        }
        retain_keys(&mut base, &mut patch)?;
        self.set_orders(&mut base, &mut patch, message)?;
        let mut gone = HashSet::new();
        for (name, value) in patch {
            if let Some(list) = name.strip_prefix(DELETE_FROM) {
                delete_from(&mut base, list, value)?;
                continue;
            }
            if value.is_null() {
                gone.insert(name);
                continue;
            }
            let member = Member::of(message, &name);
            let merged = match (base.get_mut(&name).map(Value::take), value) {
                (Some(Value::Object(old)), Value::Object(new)) if !member.replaces => {
                    Some(Value::Object(self.object(old, new, member.inside)?))
                }
                (Some(Value::Array(old)), Value::Array(new)) => {
                    Some(Value::Array(if member.merges {
                        self.list(old, new, &member)?
                    } else {
                        new
                    }))
                }
                (Some(old), new) if same_kind(&old, &new) => Some(new),
                (_, new) => without_directives(new),
            };
            match merged {
                Some(merged) => {
                    base.insert(name, merged);
                }
                None => {
                    gone.insert(name);
                }
            }
        }
        if !gone.is_empty() {
            // Together and in place: what stays keeps its order, however many go.
            base.retain(|name, _| !gone.contains(name));
        }
        Ok(base)
    }
}

fn same_kind(left: &Value, right: &Value) -> bool {
    std::mem::discriminant(left) == std::mem::discriminant(right)
}

/// Drops from the object what `$retainKeys` does not name. The patch may give nothing else, but may take other
/// members away: clients do, of what they gave before.
fn retain_keys(base: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(retained) = patch.get_mut(RETAIN_KEYS).map(Value::take) else { return Ok(()) };
    patch.retain(|name, _| name != RETAIN_KEYS);
    let malformed = || PatchError::BadRequest("invalid patch format of retainKeys".to_owned());
    let Value::Array(retained) = retained else { return Err(malformed()) };
    let named: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let is_given = |name: &str, value: &Value| !value.is_null() && !name.starts_with('$');
    if patch.iter().any(|(name, value)| is_given(name, value) && !named.contains(name.as_str())) {
        return Err(malformed());
    }
    base.retain(|name, _| named.contains(name.as_str()));
    Ok(())
}

impl Merge {
    /// Merges and orders the lists that have a `$setElementOrder`, and takes them out of the patch.
    fn set_orders(
        &mut self,
        base: &mut Object,
        patch: &mut Object,
        message: Option<&'static Message>,
    ) -> Result<(), PatchError> {
        if !patch.keys().any(|name| name.starts_with(SET_ORDER)) {
            return Ok(());
        }
        let (directives, rest): (Vec<_>, Vec<_>) =
            std::mem::take(patch).into_iter().partition(|(name, _)| name.starts_with(SET_ORDER));
        patch.extend(rest);
        let mut done = HashSet::new();
        for (directive, wanted) in directives {
            let malformed = || {
                PatchError::BadRequest("invalid patch format of setElementOrder list".to_owned())
            };
            let Value::Array(wanted) = wanted else { return Err(malformed()) };
            let name = &directive[SET_ORDER.len()..];
            let member = Member::of(message, name);
            let changes = match patch.get_mut(name).map(Value::take) {
                None => None,
                Some(Value::Array(changes)) => Some(changes),
                Some(other) => {
                    // Not a list: the loop over the members decides, without an order.
                    patch.insert(name.to_owned(), other);
                    continue;
                }
            };
            done.insert(name.to_owned());
            let before = match base.get(name) {
                Some(Value::Array(before)) => Some(before.clone()),
                _ => None,
            };
            if let Some(changes) = &changes {
                check_order(changes, &wanted, member.key)?;
            }
            let merged = match (&before, changes) {
                (None, None) => continue,
                (Some(before), None) => before.clone(),
                (None, Some(added)) => match without_directives(Value::Array(added)) {
                    Some(Value::Array(added)) => added,
                    _ => Vec::new(),
                },
                (Some(before), Some(changes)) if member.merges => {
                    self.list(before.clone(), changes, &member)?
                }
                (Some(_), Some(changes)) => changes,
            };
            let ordered =
                arrange(merged, &wanted, before.as_deref().unwrap_or_default(), member.key)?;
            base.insert(name.to_owned(), Value::Array(ordered));
        }
        patch.retain(|name, _| !done.contains(name));
        Ok(())
    }
}

/// The entries of a patch must stand in its own order list, in the same order.
fn check_order(changes: &[Value], wanted: &[Value], key: &str) -> Result<(), PatchError> {
    let mut rest = wanted.iter();
    for change in changes.iter().filter(|change| change.get(DIRECTIVE).is_none()) {
        let id = identity(change, key)?;
        let found = rest.any(|entry| identity(entry, key).is_ok_and(|other| other == id));
        if !found {
            return Err(PatchError::Unmergeable(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}",
                Value::from(changes),
                Value::from(wanted)
            )));
        }
    }
    Ok(())
}

fn delete_from(base: &mut Object, name: &str, gone: Value) -> Result<(), PatchError> {
    let Value::Array(gone) = gone else {
        return Err(PatchError::BadRequest("invalid patch format of primitive list".to_owned()));
    };
    if let Some(Value::Array(list)) = base.get_mut(name) {
        let gone =
            gone.iter().map(|entry| identity(entry, "")).collect::<Result<HashSet<_>, _>>()?;
        list.retain(|entry| identity(entry, "").is_ok_and(|id| !gone.contains(&id)));
    }
    Ok(())
}

impl Merge {
    fn list(
        &mut self,
        base: Vec<Value>,
        patch: Vec<Value>,
        member: &Member,
    ) -> Result<Vec<Value>, PatchError> {
        let Some(first) = base.iter().chain(&patch).next() else { return Ok(base) };
        if first.is_array() {
            return Err(PatchError::Unmergeable("Lists of lists are not supported".to_owned()));
        }
        if base.iter().chain(&patch).any(|entry| !same_kind(entry, first)) {
            return Err(PatchError::Unmergeable("list element types are not identical".to_owned()));
        }
        if !first.is_object() {
            // Values of one kind say the same exactly when they are written the same.
            let mut seen = HashSet::new();
            let mut merged: Vec<Value> = Vec::with_capacity(base.len() + patch.len());
            for entry in base.iter().chain(&patch) {
                if seen.insert(identity(entry, "")?) {
                    merged.push(entry.clone());
                }
            }
            return arrange(merged, &patch, &base, "");
        }
        if member.key.is_empty() {
            return Err(PatchError::Unmergeable("cannot merge lists without merge key".to_owned()));
        }
        let (base, patch) = special_entries(base, patch, member.key)?;
        let before = base.clone();
        let mut merged = base;
        // Of several entries with one key the first is meant.
        let mut places: HashMap<String, usize> = HashMap::with_capacity(merged.len());
        for (at, old) in merged.iter().enumerate() {
            places.entry(identity(old, member.key)?).or_insert(at);
        }
        let mut changed = HashSet::new();
        for entry in &patch {
            let id = identity(entry, member.key)?;
            if !changed.insert(id.clone()) {
                self.again = self.again.checked_sub(1).ok_or_else(|| {
                PatchError::TooLarge(format!(
                    "this patch changes entries of lists again more than {MOST_AGAIN} times: name each once"
                ))
            })?;
            }
            match (places.get(&id), entry) {
                (Some(&at), Value::Object(new)) => {
                    if let Value::Object(old) = merged[at].take() {
                        merged[at] = Value::Object(self.object(old, new.clone(), member.inside)?);
                    }
                }
                _ => {
                    if let Some(added) = without_directives(entry.clone()) {
                        places.entry(id).or_insert(merged.len());
                        merged.push(added);
                    }
                }
            }
        }
        // A merged entry may have changed nothing but its key's type; `identity` evens that out.
        arrange(merged, &patch, &before, member.key)
    }
}

/// Does what entries with `$patch` say; gives the list and the entries that are left to merge.
fn special_entries(
    mut base: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut rest = Vec::with_capacity(patch.len());
    let mut replace = false;
    let mut gone = HashSet::new();
    for entry in patch {
        match entry.get(DIRECTIVE) {
            None => rest.push(entry),
            Some(Value::String(directive)) if directive == "replace" => replace = true,
            Some(Value::String(directive)) if directive == "delete" => {
                gone.insert(identity(&entry, key)?);
            }
            Some(Value::String(directive)) if directive == "merge" => {
                return Err(PatchError::Unmergeable(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            Some(other) => return Err(unknown_directive(other, &entry)),
        }
    }
    if !gone.is_empty() {
        let mut kept = Vec::with_capacity(base.len());
        for old in base {
            if !gone.contains(&identity(&old, key)?) {
                kept.push(old);
            }
        }
        base = kept;
    }
    Ok(if replace { (rest, Vec::new()) } else { (base, rest) })
}

/// A value that is new to the object, without the directives and nulls in it; nothing, where it
/// only says that something be deleted.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) => {
            if map.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
                return None;
            }
            let kept = map.into_iter().filter(|(name, value)| {
                let directive = name == DIRECTIVE
                    || name == RETAIN_KEYS
                    || name.starts_with(SET_ORDER)
                    || name.starts_with(DELETE_FROM);
                !directive && !value.is_null()
            });
            Some(Value::Object(
                kept.filter_map(|(name, value)| Some((name, without_directives(value)?))).collect(),
            ))
        }
        Value::Array(list) => {
            let replace = list
                .iter()
                .any(|entry| entry.get(DIRECTIVE).and_then(Value::as_str) == Some("replace"));
            let kept = list.into_iter().filter(|entry| !replace || entry.get(DIRECTIVE).is_none());
            Some(Value::Array(kept.filter_map(without_directives).collect()))
        }
        plain => Some(plain),
    }
}

fn unknown_directive(directive: &Value, entry: &Value) -> PatchError {
    PatchError::Unmergeable(format!("unknown patch type {directive} in map {entry}"))
}
