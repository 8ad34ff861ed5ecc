//! The pod's topology spread constraints hold with it on the node.

use super::super::fit::Unfit;
use super::super::scene::{Scene, Skewed, Subject};
use super::rule::{Looks, Verdict};

pub(super) const FILTER: Looks =
    Looks::Around { passes: |scene, subject, node| scene.skewed(subject, node).is_none(), why };

fn why(scene: &Scene<'_>, subject: &Subject<'_>, node: usize) -> Verdict {
    Some(match scene.skewed(subject, node)? {
        Skewed::NoPlace => Unfit::NoPlace,
        Skewed::TooMany => Unfit::Skewed,
    })
}
