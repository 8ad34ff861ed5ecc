//! What a wish is.

use super::super::scene::{Scene, Subject};

/// The most points.
pub const MOST: i64 = 100;

/// How the numbers of one wish are brought to 0..=100.
#[derive(Clone, Copy)]
pub enum Scale {
    /// They are so already.
    Same,
    /// The largest is 100.
    Share,
    /// The largest is 0, and nothing is 100.
    Less,
    /// The smallest is 0, the largest 100.
    Between,
    /// The fewer the more, by how they differ from the fewest.
    Fewer,
}

/// A wish.
#[derive(Clone, Copy)]
pub struct Wish {
    /// As Kubernetes calls it.
    pub name: &'static str,
    /// How much it counts.
    pub weight: i64,
    /// How its numbers are brought to a hundred.
    pub scale: Scale,
    /// Whether the pod has it at all.
    pub applies: fn(&Scene<'_>, &Subject<'_>) -> bool,
    /// The number for a node; nothing where that is out of the question.
    pub of: fn(&Scene<'_>, &Subject<'_>, usize) -> Option<i64>,
}
