//! The names of a custom kind.

use crate::field::{at, list, text};
use crate::names;
use crate::structural::findings::Findings;
use crate::structural::place::Place;
use serde_json::{Value, json};

/// The names of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it all
pub struct Names {
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
}

/// Reads the names of a definition that has its defaults.
pub fn read(definition: &Value, findings: &mut Findings) -> Names {
    let names_ = at(definition, "spec.names");
    let root = Place::Root("spec.names");
    for name in ["plural", "singular"] {
        let given = text(names_, name);
        let place = root.field(name);
        if given.is_empty() {
            findings.required(&place, "");
        }
        check(given, names::dns_1035_label, "", &place, findings);
    }
    for name in ["kind", "listKind"] {
        let given = text(names_, name);
        let place = root.field(name);
        if given.is_empty() {
            findings.required(&place, "");
        }
        let lower = |text: &str| names::dns_1035_label(&text.to_ascii_lowercase());
        check(given, lower, "may have mixed case, but should otherwise match: ", &place, findings);
    }
    if !text(names_, "kind").is_empty() && text(names_, "kind") == text(names_, "listKind") {
        let why = "kind and listKind may not be the same";
        findings.invalid(&root.field("listKind"), &json!(text(names_, "listKind")), why);
    }
    let mut words = |name: &str| -> Vec<String> {
        let place = root.field(name);
        let all = list(names_, name);
        for (at, word) in all.iter().enumerate() {
            let word = word.as_str().unwrap_or_default();
            let place = place.index(at);
            if word.is_empty() {
                findings.required(&place, "");
            }
            check(word, names::dns_1035_label, "", &place, findings);
        }
        all.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let short_names = words("shortNames");
    let categories = words("categories");
    let owned = |name: &str| text(names_, name).to_owned();
    Names {
        plural: owned("plural"),
        singular: owned("singular"),
        kind: owned("kind"),
        list_kind: owned("listKind"),
        short_names,
        categories,
    }
}

fn check(
    given: &str,
    wrong: impl Fn(&str) -> Vec<String>,
    before: &str,
    place: &Place<'_>,
    findings: &mut Findings,
) {
    if given.is_empty() {
        return;
    }
    for why in wrong(given) {
        findings.invalid(place, &json!(given), &format!("{before}{why}"));
    }
}
