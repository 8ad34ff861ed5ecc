//! The pod is near those near which it must be, apart from those from whom it must be apart, and nobody there must be
//! apart from it.

use super::super::fit::Unfit;
use super::super::scene::{Scene, Subject};
use super::rule::{Looks, Verdict};

pub(super) const FILTER: Looks =
    Looks::Around { passes: |scene, subject, node| why(scene, subject, node).is_none(), why };

fn why(scene: &Scene<'_>, subject: &Subject<'_>, node: usize) -> Verdict {
    if !scene.is_near(subject, node) {
        return Some(Unfit::Far);
    }
    if !scene.is_apart(subject, node) {
        return Some(Unfit::TooNear);
    }
    (!scene.is_welcome(subject, node)).then_some(Unfit::Unwelcome)
}
