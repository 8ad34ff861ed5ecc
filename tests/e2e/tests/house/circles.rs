//! No files of one crate import each other in a circle: what a file stands on can be read, tested and
//! moved without it.

use super::modules::{Edges, edges};
use super::root;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The sets of files of which each reaches each other, largest first.
fn circles(edges: &Edges) -> Vec<BTreeSet<PathBuf>> {
    let reached: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> =
        edges.keys().map(|file| (file, reachable(edges, file))).collect();
    let mut found = BTreeSet::new();
    for (file, reaches) in &reached {
        let circle: BTreeSet<PathBuf> = reaches
            .iter()
            .filter(|other| reached.get(*other).is_some_and(|back| back.contains(*file)))
            .map(|other| (*other).clone())
            .collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    found
}

fn reachable<'a>(edges: &'a Edges, file: &'a PathBuf) -> BTreeSet<&'a PathBuf> {
    let mut reached = BTreeSet::new();
    let mut ahead = vec![file];
    while let Some(file) = ahead.pop() {
        for next in edges.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(next) {
                ahead.push(next);
            }
        }
    }
    reached
}

/// The roots of all that is compiled: libraries, programs, tests, examples.
fn crate_roots() -> Vec<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let targets = packages.flat_map(|package| package["targets"].as_array().unwrap());
    targets.map(|target| PathBuf::from(target["src_path"].as_str().unwrap())).collect()
}

/// What a reader needs to cut it: the files, and whom of the circle each of them names, and where
/// it does.
fn picture(edges: &Edges, circle: &BTreeSet<PathBuf>, root: &Path) -> String {
    let short = |file: &Path| file.strip_prefix(root).unwrap_or(file).display().to_string();
    let mut text = format!("{} files:\n", circle.len());
    for file in circle {
        let named: Vec<String> = edges[file]
            .iter()
            .filter(|(other, _)| circle.contains(*other))
            .map(|(other, path)| format!("{} ({path})", short(other)))
            .collect();
        writeln!(text, "  {} names {}", short(file), named.join(", ")).unwrap();
    }
    text
}

#[test]
fn no_files_of_one_crate_import_each_other_in_a_circle() {
    let root = root();
    let mut wrong = String::new();
    for crate_root in crate_roots() {
        let edges = edges(&crate_root);
        for circle in circles(&edges) {
            wrong.push_str(&picture(&edges, &circle, &root));
        }
    }
    assert!(wrong.is_empty(), "cut where the lower names the upper:\n{wrong}");
}

#[test]
fn who_may_do_what_is_decided_by_files_that_know_no_registry() {
    let source = root().join("cluster/objects/src");
    let edges = edges(&source.join("lib.rs"));
    let may = source.join("may.rs");
    let reached = reachable(&edges, &may);
    assert!(reached.contains(&source.join("may/node.rs")), "{reached:?}");
    let knows = |file: &&PathBuf| std::fs::read_to_string(file).unwrap().contains("RegistryHandle");
    let knowing: Vec<_> = reached.into_iter().chain([&may]).filter(knows).collect();
    assert!(knowing.is_empty(), "{knowing:?}");
}

/// Circles of a crate with these files, by the names of their files.
fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let edges = edges(&folder.path().join("lib.rs"));
    let short = |file: &PathBuf| file.strip_prefix(folder.path()).unwrap().display().to_string();
    circles(&edges).iter().map(|circle| circle.iter().map(short).collect()).collect()
}

#[test]
fn a_circle_is_found_however_the_files_name_each_other() {
    let b = ("b.rs", "pub struct B; pub fn b(_: &crate::a::A) {}");
    for a in [
        "use crate::b::B; pub struct A(B);",
        "use super::b::{self, B as Other}; pub struct A; fn a(_: Other) { b::b(&A) }",
        "pub struct A; fn a() { let x = 1; vec![crate::b::b(&A), x.b()]; }",
        "pub struct A; use crate::b; fn a() { b::b(&A) }",
        "pub struct A; fn a() { use crate::b::*; }",
        "pub struct A; pub use super::b::b; fn a() { b(&A) }",
        "pub struct A; #[serde(with = \"crate::b::B\")] struct C;",
        "pub struct A; fn a() -> impl Sized + use<> { crate::b::b(&A) }",
        "pub struct A; mod inner { fn a(_: super::super::b::B) {} }",
        "pub struct A; #[cfg(test)] use x::{Y}; fn a(_: crate::B) {}",
        "pub struct A; #[cfg(test)] mod tests { fn t() {} } impl A { fn a() -> crate::B {} }",
    ] {
        let root = ("lib.rs", "mod a; mod b; pub use b::B; pub use a::*;");
        assert_eq!(circles_of(&[root, ("a.rs", a), b]), [["a.rs", "b.rs"]], "{a}");
    }
    let parent = ("lib.rs", "mod a; mod b; pub struct Top; fn top() { a::a(); }");
    let child = ("a.rs", "pub fn a() -> super::Top { super::Top }");
    assert_eq!(circles_of(&[parent, child, ("b.rs", "")]), [["a.rs", "lib.rs"]]);
    let through_a_glob = ("lib.rs", "mod a; mod b; pub use a::*;");
    let glob = ("a.rs", "pub struct A; fn a() { crate::b::b(&A) }");
    let names_it = ("b.rs", "pub fn b(_: &crate::A) {}");
    assert_eq!(circles_of(&[through_a_glob, glob, names_it]), [["a.rs", "b.rs"]]);
}

#[test]
fn what_only_looks_like_a_circle_is_none() {
    for (a, b) in [
        // Tests may look at everything.
        (
            "use crate::b::B; pub struct A(B);",
            "pub struct B; #[cfg(test)] mod t { use crate::a::A; }",
        ),
        ("use crate::b::B; pub struct A(B);", "pub struct B; #[cfg(test)] use crate::a::A;"),
        ("use crate::b::B; pub struct A(B);", "pub struct B; #[cfg(test)] fn f(_: crate::a::A) {}"),
        // A variable or a method is no function of that name, text no path.
        (
            "use crate::b::B; pub struct A(B);",
            "pub struct B; fn b(a: u8) { let _ = a; x.a(\"crate::a::A\") }",
        ),
        (
            "use crate::b::B; pub struct A(B);",
            "/// [`crate::a::A`]\npub struct B; // crate::a::A\n",
        ),
        // Another crate has modules of the same names.
        (
            "use crate::b::B; pub struct A(B);",
            "pub struct B; use std::a::A; fn f(_: other::a::A) {}",
        ),
        // What the root re-exports is named where it is defined, not in the root.
        ("pub struct A;", "use crate::A; pub struct B(A);"),
        ("pub struct A;", "use crate::a; use super::a as other; fn b(_: a::A, _: other::A) {}"),
    ] {
        let root = ("lib.rs", "mod a; mod b; pub use a::A; pub use b::B;");
        let found = circles_of(&[root, ("a.rs", a), ("b.rs", b)]);
        assert!(found.is_empty(), "{a} {b}: {found:?}");
    }
}
