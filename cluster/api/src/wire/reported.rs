//! Paths of fields that are told to whoever sent them.

/// So many are told, and no more.
const MOST: usize = 100;
/// Bytes of a path that are told.
const PATH_BYTES: usize = 256;
/// Bytes of all paths together that are told.
const ALL_BYTES: usize = 16 * 1024;

/// The first paths of a kind, cut: a body of a few megabytes has few fields or short paths, but its
/// names may be as long as itself.
#[derive(Debug, Default)]
pub(super) struct Reported {
    paths: Vec<String>,
    bytes: usize,
}

impl Reported {
    /// Whether one more would be told.
    pub(super) fn has_room(&self) -> bool {
        self.paths.len() < MOST && self.bytes < ALL_BYTES
    }

    /// One more.
    pub(super) fn add(&mut self, path: &str) {
        if !self.has_room() {
            return;
        }
        let cut = beginning(path);
        self.bytes += cut.len();
        self.paths.push(if cut.len() < path.len() { format!("{cut}...") } else { cut.to_owned() });
    }

    pub(super) fn into_paths(self) -> Vec<String> {
        self.paths
    }
}

/// As much of a path as is told.
pub(super) fn beginning(path: &str) -> &str {
    &path[..path.floor_char_boundary(PATH_BYTES)]
}
