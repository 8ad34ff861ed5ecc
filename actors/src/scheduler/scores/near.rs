//! Rather near some pods and far from others, as the pod says and as those say that are there.

use super::wish::{Scale, Wish};

pub(super) const WISH: Wish = Wish {
    name: "InterPodAffinity",
    weight: 2,
    scale: Scale::Between,
    applies: |scene, subject| scene.has_preferences(subject),
    of: |scene, subject, node| Some(scene.liking(subject, node)),
};
