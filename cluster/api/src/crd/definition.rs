//! A definition as a whole: group, scope, versions, and what may become of it.

use super::columns::{self, Column};
use super::doors::{self, Scale, Selectable};
use super::naming::{self, Names};
use crate::cause::Cause;
use crate::field::{at, flag, get, list, object_mut, same, set, text};
use crate::names;
use crate::structural::Structural;
use crate::structural::findings::Findings;
use crate::structural::place::Place;
use crate::structural::room::Room;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// How many versions a kind may have.
const MAX_VERSIONS: usize = 32;
const APPROVED: &str = "api-approved.kubernetes.io";

/// A definition in which nothing is wrong.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // the names say it all
pub struct Definition {
    pub group: String,
    pub names: Names,
    pub namespaced: bool,
    pub versions: Vec<Version>,
}

/// A version of a kind.
#[derive(Debug, Clone)]
pub struct Version {
    /// Its name, as `v1`.
    pub name: String,
    /// Whether it is in the API.
    pub served: bool,
    /// Whether objects are kept in it.
    pub storage: bool,
    /// What everybody is told who uses it; empty where it is not deprecated.
    pub deprecated: String,
    /// What its objects are.
    pub schema: Structural,
    /// The columns of its table, without the name.
    pub columns: Vec<Column>,
    /// Whether status and spec have doors of their own.
    pub has_status: bool,
    /// Where its scale door finds its counts.
    pub scale: Option<Scale>,
    /// What it can be selected by, besides name and namespace.
    pub selectable: Vec<Selectable>,
}

/// Fills in what a definition does not say. Idempotent.
pub fn default(definition: &mut Value) {
    let kind = text(definition, "spec.names.kind").to_owned();
    let spec = object_mut(definition, "spec");
    let names = object_mut(spec, "names");
    if text(names, "singular").is_empty() && !kind.is_empty() {
        set(names, "singular", kind.to_ascii_lowercase());
    }
    if text(names, "listKind").is_empty() && !kind.is_empty() {
        set(names, "listKind", format!("{kind}List"));
    }
    let conversion = object_mut(spec, "conversion");
    if text(conversion, "strategy").is_empty() {
        set(conversion, "strategy", "None");
    }
}

/// What is wrong with a definition that has its defaults, its metadata aside.
pub fn validate(definition: &Value) -> Vec<Cause> {
    Definition::parse(definition).err().unwrap_or_default()
}

/// What is wrong with a change of a definition.
pub fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut findings = Findings::default();
    let established = list(old, "status.conditions").iter().any(|condition| {
        text(condition, "type") == "Established" && text(condition, "status") == "True"
    });
    let mut fixed = vec!["spec.group", "spec.names.plural"];
    if established {
        fixed.extend(["spec.scope", "spec.names.kind"]);
    }
    for path in fixed {
        if !same(at(new, path), at(old, path)) {
            findings.invalid(&Place::Root(path), at(new, path), "field is immutable");
        }
    }
    let served = |definition: &Value| -> Vec<Value> {
        let versions = list(definition, "spec.versions").iter();
        versions.filter(|version| flag(version, "served")).map(|v| get(v, "name").clone()).collect()
    };
    if served(new) != served(old) {
        let why = "serving another version is not supported yet: objects are not converted";
        findings.invalid(&Place::Root("spec.versions"), &json!(served(new)), why);
    }
    stored_versions(new, &mut findings);
    // What is as it was is valid: a definition must be able to go whatever is thought of it by now.
    let is_changed = !same(get(new, "spec"), get(old, "spec"));
    let mut causes = if is_changed { validate(new) } else { Vec::new() };
    causes.extend(findings.into_causes());
    causes
}

/// What is wrong with a change of a definition's status.
pub fn validate_status(new: &Value) -> Vec<Cause> {
    let mut findings = Findings::default();
    stored_versions(new, &mut findings);
    findings.into_causes()
}

/// Objects may be kept in any version that has ever been the one to keep them in, so none of those
/// may go before somebody has said that none are.
fn stored_versions(definition: &Value, findings: &mut Findings) {
    let stored = list(definition, "status.storedVersions");
    if stored.is_empty() {
        return;
    }
    let place = Place::Root("status.storedVersions");
    let versions = list(definition, "spec.versions");
    for (at, version) in stored.iter().enumerate() {
        if !versions.iter().any(|known| get(known, "name") == version) {
            findings.invalid(&place.index(at), version, "must appear in spec.versions");
        }
    }
    let storage = versions.iter().find(|version| flag(version, "storage"));
    if let Some(storage) = storage.map(|version| get(version, "name"))
        && !stored.contains(storage)
    {
        let why = format!("must have the storage version {}", storage.as_str().unwrap_or_default());
        findings.invalid(&place, &json!(stored), &why);
    }
}

impl Definition {
    /// Reads a definition that has its defaults; the error is all that is wrong with it.
    pub fn parse(definition: &Value) -> Result<Self, Vec<Cause>> {
        let mut findings = Findings::default();
        let names = naming::read(definition, &mut findings);
        let group = text(definition, "spec.group").to_owned();
        group_and_name(definition, &group, &names, &mut findings);
        let scope = text(definition, "spec.scope");
        let place = Place::Root("spec.scope");
        match scope {
            "Namespaced" | "Cluster" => {}
            "" => findings.required(&place, ""),
            other => {
                let known = [json!("Cluster"), json!("Namespaced")];
                findings.not_supported(&place, &json!(other), &known);
            }
        }
        if flag(definition, "spec.preserveUnknownFields") {
            let place = Place::Root("spec.preserveUnknownFields");
            findings.invalid(&place, &json!(true), "must be false");
        }
        conversion(definition, &mut findings);
        let mut more = Vec::new();
        let versions = versions(definition, &mut findings, &mut more);
        // What is wrong by itself is told alone.
        if findings.is_empty() && more.is_empty() {
            limits(definition, &names, &mut findings);
        }
        let mut causes = findings.into_causes();
        causes.extend(more);
        causes.truncate(crate::field::MAX_CAUSES);
        if causes.is_empty() {
            Ok(Self { group, names, namespaced: scope == "Namespaced", versions })
        } else {
            Err(causes)
        }
    }

    /// The version that objects are kept in.
    pub fn storage(&self) -> Option<&Version> {
        self.versions.iter().find(|version| version.storage)
    }
}

fn group_and_name(definition: &Value, group: &str, kind: &Names, findings: &mut Findings) {
    let place = Place::Root("spec.group");
    if group.is_empty() {
        findings.required(&place, "");
    } else {
        for why in names::dns_subdomain(group) {
            findings.invalid(&place, &json!(group), &why);
        }
        if !group.contains('.') {
            let why = "should be a domain with at least one dot";
            findings.invalid(&place, &json!(group), why);
        }
    }
    let name = text(definition, "metadata.name");
    if name != format!("{}.{group}", kind.plural) {
        let why = "must be spec.names.plural+\".\"+spec.group";
        findings.invalid(&Place::Root("metadata.name"), &json!(name), why);
    }
    let of = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    if of("impresario.dev") {
        let why = "belongs to Impresario itself: use a group of your own";
        findings.invalid(&place, &json!(group), why);
    }
    let approval = get(at(definition, "metadata.annotations"), APPROVED);
    if (of("k8s.io") || of("kubernetes.io")) && approval.as_str().unwrap_or_default().is_empty() {
        let annotations = Place::Root("metadata.annotations");
        let why = format!(
            "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        findings.required(&annotations.key(APPROVED), &why);
    }
}

/// What would be a definition to Kubernetes, and is none here yet.
fn limits(definition: &Value, names: &Names, findings: &mut Findings) {
    let versions = list(definition, "spec.versions");
    let served: Vec<&Value> = versions.iter().filter(|version| flag(version, "served")).collect();
    let place = Place::Root("spec.versions");
    match served[..] {
        [] => findings.invalid(&place, &json!(names_of(versions)), "must have a served version"),
        [only] if !flag(only, "storage") => {
            let why = "serving another version than the storage version is not supported yet: objects are not converted";
            findings.invalid(&place, get(only, "name"), why);
        }
        [_] => {}
        _ => {
            let all: Vec<&Value> = served.iter().map(|version| get(version, "name")).collect();
            let why =
                "several served versions are not supported yet: serve the storage version alone";
            findings.invalid(&place, &json!(all), why);
        }
    }
    let usual = format!("{}List", names.kind);
    if !names.list_kind.is_empty() && names.list_kind != usual {
        let why = format!("another than {usual} is not supported yet");
        findings.invalid(&Place::Root("spec.names.listKind"), &json!(names.list_kind), &why);
    }
}

/// Versions differ in name alone; whoever asks for a webhook is told that nobody would call it.
fn conversion(definition: &Value, findings: &mut Findings) {
    let place = Place::Root("spec.conversion");
    let strategy = text(definition, "spec.conversion.strategy");
    match strategy {
        "None" | "" => {}
        other => findings.not_supported(&place.field("strategy"), &json!(other), &[json!("None")]),
    }
    if strategy == "None" && !at(definition, "spec.conversion.webhook").is_null() {
        let why = "should not be set when strategy is not set to Webhook";
        findings.forbidden(&place.field("webhook"), why);
    }
}

fn versions(definition: &Value, findings: &mut Findings, more: &mut Vec<Cause>) -> Vec<Version> {
    let all = list(definition, "spec.versions");
    let place = Place::Root("spec.versions");
    if all.len() > MAX_VERSIONS {
        findings.too_many(&place, all.len(), MAX_VERSIONS as u64);
        return Vec::new();
    }
    let names: BTreeSet<&str> = all.iter().map(|version| text(version, "name")).collect();
    if names.len() < all.len() {
        findings.invalid(&place, &json!(names_of(all)), "must contain unique version names");
    }
    if all.iter().filter(|version| flag(version, "storage")).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        findings.invalid(&place, &json!(names_of(all)), why);
    }
    // What all versions say alike is told once, and where Kubernetes tells it.
    let shared = |name: &str| all.iter().all(|version| get(version, name) == get(&all[0], name));
    let mut read = Vec::new();
    let mut room = Room::default();
    for (index, version) in all.iter().enumerate() {
        let place = place.index(index);
        let once = |name: &str, shared_at: &str| {
            let own = format!("{}.{name}", place.bare());
            if !shared(name) {
                return Some(own);
            }
            (index == 0).then(|| shared_at.to_owned())
        };
        name_and_warning(version, &place, findings);
        let schema_at = once("schema", Structural::SHARED)
            .map(|at| if at == Structural::SHARED { at } else { format!("{at}.openAPIV3Schema") });
        let given = at(version, "schema.openAPIV3Schema");
        if given.is_null() {
            let place = place.field("schema");
            findings.required(&place.field("openAPIV3Schema"), "schemas are required");
            continue;
        }
        let schema_place = schema_at.as_deref().unwrap_or_default();
        let parsed = Structural::parse_within(given, schema_place, &mut room);
        let schema = match parsed {
            Ok(schema) => schema,
            Err(causes) => {
                if schema_at.is_some() {
                    more.extend(causes);
                }
                continue;
            }
        };
        // What is shared and wrong has been told with the first version.
        let mut quiet = Findings::default();
        let told = |name: &str, shared_at: &str| match once(name, shared_at) {
            Some(at) => (at, true),
            None => (String::new(), false),
        };
        let (at, tells) = told("additionalPrinterColumns", "spec.additionalPrinterColumns");
        let sink = if tells { &mut *findings } else { &mut quiet };
        let columns = columns::read(columns::of_version(version), &Place::Root(&at), sink);
        let (at, tells) = told("subresources", "spec.subresources");
        let sink = if tells { &mut *findings } else { &mut quiet };
        let scale = doors::scale(version, &Place::Root(&at), sink);
        let (at, tells) = told("selectableFields", "spec.selectableFields");
        let sink = if tells { &mut *findings } else { &mut quiet };
        let selectable = doors::selectable(version, schema.root(), &Place::Root(&at), sink);
        read.push(Version {
            name: text(version, "name").to_owned(),
            served: flag(version, "served"),
            storage: flag(version, "storage"),
            deprecated: deprecation(definition, version),
            schema,
            columns,
            has_status: doors::has_status(version),
            scale,
            selectable,
        });
    }
    read
}

fn names_of(versions: &[Value]) -> Vec<&Value> {
    versions.iter().map(|version| get(version, "name")).collect()
}

fn name_and_warning(version: &Value, place: &Place<'_>, findings: &mut Findings) {
    let name = text(version, "name");
    for why in names::dns_1035_label(name) {
        findings.invalid(&place.field("name"), &json!(name), &why);
    }
    let warning = text(version, "deprecationWarning");
    let place = place.field("deprecationWarning");
    if !warning.is_empty() && !flag(version, "deprecated") {
        findings.invalid(&place, &json!(warning), "can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        findings.too_long(&place, 256);
    }
    if warning.chars().any(char::is_control) {
        findings.invalid(&place, &json!(warning), "must only contain printable UTF-8 characters");
    }
}

fn deprecation(definition: &Value, version: &Value) -> String {
    if !flag(version, "deprecated") {
        return String::new();
    }
    let given = text(version, "deprecationWarning");
    if !given.is_empty() {
        return given.to_owned();
    }
    let group = text(definition, "spec.group");
    let kind = text(definition, "spec.names.kind");
    format!("{group}/{} {kind} is deprecated", text(version, "name"))
}
