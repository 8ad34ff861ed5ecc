//! Rather where fewer like the pod are, by the constraints that need not hold.

use super::super::scene::Scene;
use super::wish::{Scale, Wish};

pub(super) const WISH: Wish = Wish {
    name: "PodTopologySpread",
    weight: 2,
    scale: Scale::Fewer,
    applies: |_, subject| Scene::would_spread(subject),
    of: |scene, subject, node| scene.crowded(subject, node),
};
