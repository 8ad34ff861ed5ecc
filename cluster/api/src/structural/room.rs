//! What one definition may cost whoever reads it, all of its schemas together.
//!
//! Every member reads every definition again when it starts: what a schema may cost must not be had
//! once for each version and each default.

use super::defaults::MAX_FILLED;
use super::expressions::STEPS_OF_OBJECT;
use crate::pattern::{Pattern, PatternError};
use std::collections::HashMap;

/// What all patterns of a definition may take once they are compiled, in bytes.
const MAX_PATTERN_BYTES: usize = 32 * 1024 * 1024;

/// What is left of it.
#[derive(Debug)]
pub struct Room {
    /// Bytes that defaults may fill in below defaults.
    pub filled: usize,
    /// The work of the rules that are asked about defaults.
    pub steps: u64,
    /// Bytes of compiled patterns.
    pattern_bytes: usize,
    patterns: HashMap<String, Result<Pattern, PatternError>>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            filled: MAX_FILLED,
            steps: STEPS_OF_OBJECT,
            pattern_bytes: MAX_PATTERN_BYTES,
            patterns: HashMap::new(),
        }
    }
}

impl Room {
    /// Compiles a pattern, or takes the one that another version has had compiled.
    pub fn pattern(&mut self, source: &str) -> Result<Pattern, PatternError> {
        if let Some(known) = self.patterns.get(source) {
            return known.clone();
        }
        let compiled = Pattern::within(source, &mut self.pattern_bytes);
        self.patterns.insert(source.to_owned(), compiled.clone());
        compiled
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_a_definition_have_one_room_and_the_same_one_takes_it_once() {
        let mut room = Room::default();
        let large = |at: usize| format!("\\pL{{5}}{at}");
        room.pattern(&large(0)).unwrap();
        let left = room.pattern_bytes;
        assert!(left < MAX_PATTERN_BYTES - 64 * 1024);
        room.pattern(&large(0)).unwrap();
        assert_eq!(room.pattern_bytes, left);
        let taken = (1..256).take_while(|at| room.pattern(&large(*at)).is_ok()).count();
        assert!(taken < 200, "{taken} large patterns were taken");
        assert_eq!(room.pattern(&large(taken + 1)).unwrap_err(), PatternError::NoRoom);
        let mut room = Room::default();
        for at in 0..256 {
            room.pattern(&format!("^[a-z0-9]([-a-z0-9]*[a-z0-9])?{at}$")).unwrap();
        }
    }
}
