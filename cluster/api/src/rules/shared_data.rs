//! What a Kubernetes server was seen to answer, for tests: the cells of its tables.

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
