//! How many pods may be missing, or too many, while a template is rolled out.

use crate::field::{Causes, Path};
use serde_json::Value;

/// How much of a whole is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// None.
    Nothing,
    /// Some.
    Some,
    /// More than there are, whatever their number.
    MoreThanAll,
}

/// Reads a number of pods, or a percentage of them; nothing where it is neither, which is said.
pub fn part(given: &Value, path: &Path, causes: &mut Causes) -> Option<Part> {
    if let Some(number) = given.as_i64() {
        causes.not_negative(path, Some(number));
        return Some(if number == 0 { Part::Nothing } else { Part::Some });
    }
    let text = given.as_str().unwrap_or_default();
    let digits = text.strip_suffix('%').unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        causes.invalid(path, given.clone(), "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%', or '93%', regex used for validation is '[0-9]+%')");
        return None;
    }
    match digits.trim_start_matches('0') {
        "" => Some(Part::Nothing),
        digits if digits.len() > 3 || digits.parse::<u32>().is_ok_and(|it| it > 100) => {
            Some(Part::MoreThanAll)
        }
        _ => Some(Part::Some),
    }
}
