//! The bytes of every message that actors send each other, kept in `golden/`.
//!
//! A type that crosses the wire cannot change by accident: its samples would have other bytes. A
//! message cannot be forgotten: the source is searched for those that have no sample.
//!
//! Members of two versions talk to each other while a cluster is updated. Where a type must change on purpose, the
//! message gets a new name (`training.RequestBid2`); the old one keeps its bytes and its samples, is answered, and
//! is asked of who says `UnknownMessage` to the new one, until no member can be of that version.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod authority;
mod nodes;
mod objects;
mod raft;
mod record;
mod registry;
mod training;

use record::Record;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const AREAS: [fn() -> Record; 6] = [
    authority::record,
    nodes::record,
    objects::record,
    raft::record,
    registry::record,
    training::record,
];

/// Where messages are declared.
const DECLARED_IN: [&str; 5] = [
    "cluster/client/src/protocol",
    "cluster/client/src/objects/protocol.rs",
    "cluster/registry-api/src/protocol.rs",
    "cluster/registry/src/raft/messages.rs",
    "runtime/src/chaos.rs",
];

#[test]
fn the_bytes_of_a_message_never_change_by_accident() {
    let changed: Vec<String> = AREAS.iter().filter_map(|area| area().differences()).collect();
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

#[test]
fn every_message_that_is_declared_is_on_record() {
    let recorded: BTreeSet<String> =
        AREAS.iter().flat_map(|area| area().names().collect::<Vec<_>>()).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let declared: BTreeSet<String> =
        DECLARED_IN.iter().flat_map(|place| declarations(&root.join(place))).collect();
    assert!(declared.len() > 40, "the search finds too little: {declared:?}");
    let missing: Vec<_> = declared.difference(&recorded).collect();
    assert!(missing.is_empty(), "these need samples in {}: {missing:?}", file!());
}

/// The names of the messages that a file declares, or those of all files below a folder.
fn declarations(place: &Path) -> Vec<String> {
    if place.is_dir() {
        let files = place.read_dir().unwrap().map(|entry| entry.unwrap().path());
        return files
            .collect::<Vec<PathBuf>>()
            .iter()
            .flat_map(|file| declarations(file))
            .collect();
    }
    let source = std::fs::read_to_string(place).unwrap();
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    // After the macro's name, the first string is the message's.
    let named = |after: &str| after.split('"').nth(1).map(str::to_owned);
    code.split("message!(").skip(1).filter_map(named).collect()
}
