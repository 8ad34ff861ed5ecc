//! Time, chance and tasks come from one crate: everything else can be run again in a simulation, to the last number.

use super::{root, sources};
use std::fmt::Write as _;

/// What stands in `runtime/ambient` alone, and what is said instead.
const INSTEAD: &[(&str, &str)] = &[
    ("SystemTime::now", "clock::wall"),
    ("Timestamp::now", "clock::timestamp"),
    ("rand::rng", "random::rng"),
    ("rand::random", "random::random"),
    ("tokio::spawn", "tasks::spawn"),
    ("task::spawn", "tasks::spawn"),
    ("spawn_blocking", "tasks::spawn_blocking"),
];

/// Whether a line of code says this word, and not another one that ends with it.
fn says(line: &str, word: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(word).any(|(at, _)| {
        let is_of_a_name = |one: char| one.is_alphanumeric() || one == '_';
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_of_a_name) && !after.is_some_and(is_of_a_name)
    })
}

/// What this text takes from its surroundings by itself, line by line.
fn taken(text: &str) -> Vec<(usize, &'static str)> {
    // Tokio's stands still where its clock is paused.
    let is_tokio_s = text.split("use tokio::").skip(1).any(|rest| {
        let names = rest.split(';').next().unwrap_or_default();
        names.split(|one: char| !one.is_alphanumeric()).any(|name| name == "Instant")
    });
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for (word, instead) in INSTEAD {
            if says(line, word) && !line.contains(instead) {
                found.push((at + 1, *instead));
            }
        }
        let tokio_s = is_tokio_s || line.contains("tokio::time::Instant::now");
        if says(line, "Instant::now") && !tokio_s || line.contains("std::time::Instant::now") {
            found.push((at + 1, "clock::now"));
        }
    }
    found
}

#[test]
fn time_chance_and_tasks_are_taken_from_one_place() {
    let root = root();
    let mut files = Vec::new();
    for folder in ["runtime", "actors", "cluster"] {
        sources(&root.join(folder), &mut files);
    }
    let mut wrong = String::new();
    for file in files {
        let short = file.strip_prefix(&root).unwrap().to_owned();
        // The product; tests of a crate from outside have clocks of their own.
        let is_product = short.components().any(|part| part.as_os_str() == "src");
        if !is_product || short.starts_with("runtime/ambient") {
            continue;
        }
        for (line, instead) in taken(&std::fs::read_to_string(&file).unwrap()) {
            writeln!(wrong, "{}:{line}: say {instead}", short.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn what_a_file_takes_by_itself_is_seen_however_it_is_written() {
    for (text, instead) in [
        ("let now = Instant::now();", "clock::now"),
        ("x.get_or_insert_with(std::time::Instant::now)", "clock::now"),
        ("use tokio::time::timeout;\nlet a = Instant::now();", "clock::now"),
        ("std::time::SystemTime::now()", "clock::wall"),
        ("clock: Arc::new(jiff::Timestamp::now),", "clock::timestamp"),
        ("rand::rng().random_range(0..1)", "random::rng"),
        ("let x: u8 = rand::random();", "random::random"),
        ("    tokio::spawn(async {});", "tasks::spawn"),
        ("tokio::task::spawn_blocking(work)", "tasks::spawn_blocking"),
    ] {
        assert_eq!(
            taken(text).iter().map(|(_, instead)| *instead).collect::<Vec<_>>(),
            [instead],
            "{text}"
        );
    }
    for text in [
        "use tokio::time::{Instant, sleep};\nlet a = Instant::now();",
        "use tokio::{\n    sync::watch,\n    time::{self, Instant},\n};\nlet a = Instant::now();",
        "use rand::rngs::StdRng;",
        "// Instant::now() would stand still",
        "let now = clock::now(); tasks::spawn_blocking(work); random::random::<u8>();",
        "BootTime::now()",
    ] {
        assert!(taken(text).is_empty(), "{text}: {:?}", taken(text));
    }
}
