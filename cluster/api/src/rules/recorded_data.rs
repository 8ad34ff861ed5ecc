//! What a Kubernetes server was seen to answer, for tests (`tests/data/README.md`).

use std::path::Path;

/// A recorded file.
pub(crate) fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/kubernetes").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of a `.tsv` file, its heading left out.
pub(crate) fn table(file: &str) -> Vec<Vec<String>> {
    let rows = read(file);
    rows.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}
