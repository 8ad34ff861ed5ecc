//! Paths below a folder, which must not lead out of it.

use crate::field::{Causes, Path};

/// A path within a volume must stay within it.
pub fn inside(path: &Path, value: &str, causes: &mut Causes) {
    if value.starts_with('/') {
        causes.invalid(path, value, "must be a relative path");
    }
    no_backsteps(path, value, causes);
}

/// No part of a path may be `..`.
pub fn no_backsteps(path: &Path, value: &str, causes: &mut Causes) {
    if has_backsteps(value) {
        causes.invalid(path, value, "must not contain '..'");
    }
}

/// Whether a part of a path is `..`.
pub fn has_backsteps(value: &str) -> bool {
    value.split('/').any(|part| part == "..")
}
