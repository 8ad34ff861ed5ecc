//! Rather where the pod's images are already, where nodes say which they have. What only few nodes have counts less, so
//! that not all pods of an image gather there.

use super::super::scene::{Scene, Subject};
use super::wish::{MOST, Scale, Wish};

pub(super) const WISH: Wish = Wish {
    name: "ImageLocality",
    weight: 1,
    scale: Scale::Same,
    applies: |scene, subject| scene.has_images && !subject.pod.demands.images.is_empty(),
    of,
};

/// Less than this is as good as nothing.
const LEAST: u64 = 23 << 20;
/// For each container; more than this counts no more.
const LARGEST: u64 = 1000 << 20;

fn of(scene: &Scene<'_>, subject: &Subject<'_>, node: usize) -> Option<i64> {
    let (images, all) = (&subject.pod.demands.images, scene.nodes.len().max(1) as u64);
    let there = images.iter().filter_map(|image| {
        let image = named(image);
        let size = scene.nodes[node].images.get(&image)?;
        Some(u128::from(*size) * u128::from(scene.with_image(&image)) / u128::from(all))
    });
    let sum = u64::try_from(there.sum::<u128>()).unwrap_or(u64::MAX);
    let most = LARGEST.saturating_mul(images.len() as u64);
    let points = sum.clamp(LEAST, most.max(LEAST)) - LEAST;
    let points = points.saturating_mul(MOST.unsigned_abs()) / (most - LEAST).max(1);
    i64::try_from(points).ok()
}

/// An image without a tag is the latest.
fn named(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}
