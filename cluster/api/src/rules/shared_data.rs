//! What a Kubernetes server was seen to answer, for tests: every recorded row of a file.

use serde_json::Value;
use std::path::PathBuf;

fn folder() -> PathBuf {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let root = std::env::var("IMPRESARIO_SHARED").unwrap_or_else(|_| here.to_owned());
    PathBuf::from(root).join("data/kubernetes")
}

fn read(file: &str) -> String {
    let path = folder().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; set IMPRESARIO_SHARED to the folder that holds data/", path.display())
    })
}

/// The cells of a `.tsv` file, its heading left out.
pub(crate) fn table(file: &str) -> Vec<Vec<String>> {
    let rows = read(file);
    rows.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// The objects of a `.jsonl` file, with repeated texts written out.
pub(crate) fn rows(file: &str) -> Vec<Value> {
    let lines = read(file);
    lines.lines().map(|line| expand(serde_json::from_str(line).expect("a row of JSON"))).collect()
}

/// Writes out `{"$repeat": ["x", n]}`.
fn expand(value: Value) -> Value {
    match value {
        Value::Object(map) => match map.get("$repeat").and_then(Value::as_array) {
            Some(repeat) => {
                let (text, count) = (repeat[0].as_str().expect("a text"), repeat[1].as_u64());
                text.repeat(count.expect("a count") as usize).into()
            }
            None => map.into_iter().map(|(key, value)| (key, expand(value))).collect(),
        },
        Value::Array(list) => list.into_iter().map(expand).collect(),
        other => other,
    }
}
