//! What users are told of every kind, held against the catalog: the guide, and the warnings.

use impresario_api::catalog::{Catalog, served};
use impresario_api::resource::{Effect, Row};
use std::collections::BTreeSet;
use std::path::Path;

/// The row of the guide's table about a kind.
fn told(row: &Row) -> String {
    let effect = match &row.effect {
        Effect::ActedOn(who) => who.to_string(),
        Effect::Stored => "stored only".to_owned(),
        Effect::NotEnforced(what) => format!("**stored only, with a warning**: {what}"),
    };
    let version = match &row.conversion {
        Some(_) => {
            format!("`{}`, kept as `{}`", row.api_version(), served().kept(row).api_version())
        }
        None => format!("`{}`", row.api_version()),
    };
    format!("| {} | {version} | {effect} |", row.kind)
}

#[test]
fn the_guide_tells_of_every_kind_what_acts_on_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/kinds.md");
    let page = std::fs::read_to_string(&path).expect("the guide of the kinds");
    let ours: BTreeSet<String> = Catalog::new().resources().iter().map(told).collect();
    let theirs: BTreeSet<String> = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains(" | `"))
        .map(str::to_owned)
        .collect();
    let missing: Vec<&String> = ours.difference(&theirs).collect();
    let wrong: Vec<&String> = theirs.difference(&ours).collect();
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "{}: these lines are to be added:\n{missing:#?}\nand these are to go:\n{wrong:#?}",
        path.display()
    );
}

#[test]
fn who_writes_what_nobody_enforces_is_told_in_a_sentence_that_fits_a_header() {
    let rows = Catalog::new().resources();
    let told: Vec<String> = rows.iter().filter_map(|row| row.not_enforced()).collect();
    assert!(told.len() > 5, "{told:?}");
    for warning in told {
        assert!(warning.len() <= 256 && warning.is_ascii(), "{warning}");
        assert!(warning.contains(" is stored and not enforced yet: "), "{warning}");
    }
    for kind in ["NetworkPolicy", "ResourceQuota", "LimitRange", "PriorityClass"] {
        let row = rows.iter().find(|row| row.kind == kind).expect("a kind that is served");
        let is_enforced = matches!(row.effect, Effect::ActedOn(_));
        assert!(is_enforced || row.not_enforced().is_some(), "{kind} would be believed");
    }
}

#[test]
fn a_kind_in_several_versions_is_kept_in_one_that_is_served() {
    let rows = Catalog::new().resources();
    let mut converted = BTreeSet::new();
    for row in rows.iter().filter(|row| !row.is_as_kept()) {
        let kept = served().kept(row);
        assert!(kept.is_as_kept(), "{} is kept as what is not kept", row.api_version());
        assert_eq!((&kept.kind, kept.namespaced), (&row.kind, row.namespaced));
        let key = impresario_api::resource::resource_key(row);
        assert_eq!(key, impresario_api::resource::resource_key(&kept));
        // Watches tell two forms of one object apart, and no third one.
        assert!(converted.insert(key), "{} has another version besides", row.plural);
    }
    assert!(!converted.is_empty());
}

#[test]
fn every_kind_that_is_served_may_say_what_it_is() {
    for row in Catalog::new().resources().iter() {
        let Some(message) = row.schema.message() else { continue };
        assert!(message.is_kind(), "{} may not say its kind", row.kind);
    }
}
