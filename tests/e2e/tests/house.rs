//! The rules of the house that a program can check: which way dependencies point, where the codec
//! is named, how long a file may be, that nothing beside the checkout is read, and that no files import
//! each other in a circle.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "house/circles.rs"]
mod circles;
#[path = "house/modules.rs"]
mod modules;
#[path = "house/surroundings.rs"]
mod surroundings;

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each crate of ours may depend on, of ours. What is not in the row is a change to the
/// architecture: see docs/architecture.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("impresario-ambient", &[]),
    ("impresario-runtime", &["ambient"]),
    ("impresario-api", &["ambient"]),
    ("impresario-auction", &[]),
    ("impresario-simulation", &["ambient", "auction"]),
    ("impresario-registry-api", &["runtime"]),
    ("impresario-registry", &["runtime", "registry-api"]),
    ("impresario-host", &["ambient", "api"]),
    ("impresario-spdy", &["ambient"]),
    ("impresario-client", &["runtime", "api", "registry-api"]),
    ("impresario-objects", &["runtime", "api", "registry-api", "client"]),
    ("impresario-gateway", &["runtime", "api", "registry-api", "objects", "client", "spdy"]),
    (
        "impresario-actors",
        &["runtime", "api", "auction", "registry-api", "objects", "client", "host"],
    ),
    ("impresario-speech", &["runtime", "api", "client", "actors"]),
    ("impresario-chaos", &["runtime", "api", "registry-api", "objects", "client"]),
    (
        "imp",
        &[
            "ambient",
            "runtime",
            "api",
            "auction",
            "simulation",
            "registry-api",
            "registry",
            "objects",
            "host",
            "client",
            "gateway",
            "actors",
            "speech",
            "chaos",
        ],
    ),
    ("impresario-sdk-example", &["runtime", "api", "client"]),
    ("impresario-e2e", &[]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
fn dependencies_point_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = allowed.get(name) else {
            wrong.push(format!("{name} has no row in ARROWS"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let ours = other.strip_prefix("impresario-").or((other == "imp").then_some("imp"));
            if let Some(short) = ours
                && dependency["kind"] != "dev"
                && !allowed.contains(&short)
            {
                wrong.push(format!("{name} depends on {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Which features of the runtime a build of the whole workspace turns on, with these options.
fn runtime_features(options: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--edges", "normal,build,features"])
        .args(["--invert", "impresario-runtime", "--depth", "1", "--prefix", "none"])
        .args(options)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let features = tree.lines().filter_map(|line| line.strip_prefix("impresario-runtime feature "));
    features.map(|feature| feature.trim_matches('"').to_owned()).collect()
}

#[test]
fn no_build_but_the_one_that_is_tested_has_faults_on_purpose() {
    let has_faults = |options: &[&str]| runtime_features(options).contains(&"mutants".to_owned());
    assert!(!has_faults(&[]), "a crate turns on the feature mutants");
    assert!(has_faults(&["--features", "imp/mutants"]), "tests/run builds with it");
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_codec_is_named_in_one_file() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let named: Vec<_> = files
        .into_iter()
        .filter(|path| !path.ends_with("tests/e2e/tests/house.rs"))
        .filter(|path| std::fs::read_to_string(path).unwrap().contains("bincode::"))
        .collect();
    assert_eq!(named, [root().join("runtime/src/codec.rs")]);
}

#[test]
fn the_unit_that_is_shipped_ends_no_container_with_its_node() {
    let unit = std::fs::read_to_string(root().join("examples/systemd/impresario.service")).unwrap();
    let service = unit.split_once("\n[Service]\n").unwrap().1.split("\n[").next().unwrap();
    let settings: Vec<&str> = service.lines().filter(|line| !line.starts_with('#')).collect();
    for (setting, why) in [
        ("KillMode=process", "else a restart ends the keepers, and with them all containers"),
        ("Delegate=yes", "else systemd moves containers out of the groups that the node made"),
        ("OOMScoreAdjust=-999", "else the node may go before its containers"),
    ] {
        assert!(settings.contains(&setting), "{setting}: {why}: {settings:?}");
        let (name, _) = setting.split_once('=').unwrap();
        let of_the_name = settings.iter().filter(|line| line.starts_with(&format!("{name}=")));
        assert_eq!(of_the_name.count(), 1, "the last {name} would hold");
    }
}

/// Longer files do more than one thing.
const LINES: usize = 500;

#[test]
fn no_file_is_so_long_that_it_does_more_than_one_thing() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let long: Vec<_> = files
        .iter()
        .map(|path| (path, std::fs::read_to_string(path).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > LINES)
        .collect();
    assert!(long.is_empty(), "split them, by what they do: {long:#?}");
}

#[test]
fn a_test_that_is_left_out_does_not_pass_where_everything_must_be_shown() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let leaves_out = ["println!(\"left", "out: "].join(" ");
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in &files {
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for at in (0..lines.len()).filter(|at| lines[*at].starts_with(&leaves_out)) {
            seen += 1;
            if at == 0 || !lines[at - 1].contains("left out with CI=true") {
                wrong.push(format!("{}:{}", path.display(), at + 1));
            }
        }
    }
    assert!(seen > 0 && wrong.is_empty(), "{seen} seen: {wrong:#?}");
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.contains("export CI=true"), "there everything must be shown");
}

/// The place in a program's text that names a file above the checkout, from the folder of the crate or
/// from that of the file, which are so many folders below its root.
fn leaves(text: &str, crate_depth: usize, file_depth: usize) -> Option<&str> {
    let marks =
        [("CARGO_MANIFEST_DIR", crate_depth), ("include_", file_depth), ("#[path", file_depth)];
    marks.into_iter().find_map(|(mark, depth)| {
        text.match_indices(mark).find_map(|(at, _)| {
            let statement = text[at..].split([';', '\n']).next()?;
            (statement.matches("../").count() > depth).then_some(statement)
        })
    })
}

#[test]
fn nothing_beside_the_checkout_is_read() {
    let root = root();
    let depth = |folder: &Path| folder.strip_prefix(&root).unwrap().components().count();
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for path in &files {
        let Some(folder) = path.ancestors().skip(1).find(|up| up.join("Cargo.toml").exists())
        else {
            continue;
        };
        let text = std::fs::read_to_string(path).unwrap();
        if let Some(statement) = leaves(&text, depth(folder), depth(path.parent().unwrap())) {
            wrong.push(format!("{}: {statement}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "a clone has no neighbours; use tests/data: {wrong:#?}");
}

#[test]
fn a_path_that_leaves_the_checkout_is_told_from_one_that_stays() {
    let up = |steps: usize| "../".repeat(steps);
    let of_crate = |steps| format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{}x\")", up(steps));
    let of_file = |steps| format!("include_str!(\"{}x\")", up(steps));
    assert_eq!(leaves(&of_crate(2), 2, 4), None);
    assert!(leaves(&of_crate(3), 2, 4).is_some());
    assert_eq!(leaves(&of_file(4), 2, 4), None);
    assert!(leaves(&of_file(5), 2, 4).is_some());
}

#[test]
fn no_file_is_named_after_nothing() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let nothing = ["util", "utils", "helper", "helpers", "common", "misc", "mod"];
    let named: Vec<_> = files
        .iter()
        .filter(|path| nothing.contains(&&*path.file_stem().unwrap().to_string_lossy()))
        .collect();
    assert!(named.is_empty(), "{named:?}");
}

/// Whether an SPDX expression (SPDX specification 2.3, annex D; `/` is an old way to write `OR`) can be
/// satisfied with the licences of `allowed`.
fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    any(&mut words, allowed)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut holds = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        holds |= all(words, allowed);
    }
    holds
}

fn all(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut holds = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        holds &= one(words, allowed);
    }
    holds
}

fn one(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let word = words.next().unwrap();
    if word == "(" {
        let holds = any(words, allowed);
        assert_eq!(words.next(), Some(")"));
        return holds;
    }
    let mut licence = word.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{word} WITH {}", words.next().unwrap());
    }
    // With a plus it is that one or a later one, as one likes.
    allowed.iter().any(|one| *one == licence.trim_end_matches('+'))
}

#[test]
fn every_dependency_has_a_licence_that_deny_toml_allows() {
    let deny = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let list = deny.split_once("allow = [").unwrap().1.split_once(']').unwrap().0;
    let allowed: Vec<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "{} packages", packages.len());
    let wrong: Vec<_> = packages
        .iter()
        .filter(|package| !satisfied(package["license"].as_str().unwrap_or("none"), &allowed))
        .map(|package| format!("{} {}", package["name"], package["license"]))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn licence_expressions_are_read_as_spdx_says() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned(), "A WITH e".to_owned()];
    for (expression, holds) in [
        ("MIT", true),
        ("MIT/GPL", true),
        ("GPL OR MIT", true),
        ("GPL AND MIT", false),
        ("(GPL OR MIT) AND ISC", true),
        ("A WITH e OR GPL", true),
        ("A", false),
        ("ISC+", true),
        ("GPL+", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), holds, "{expression}");
    }
}
