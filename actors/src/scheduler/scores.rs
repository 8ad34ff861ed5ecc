//! What a pod would rather have, in numbers: one file for each wish, and the list of them.
//!
//! Each is brought to 0..=100 over the nodes that fit, as in Kubernetes, weighed, and added to what the policy says.

mod images;
mod near;
mod nodes;
mod spread;
mod taints;
mod wish;

use super::scene::{Scene, Subject};
pub use wish::Wish;
use wish::{MOST, Scale};

/// The scale of policies: so much is one point of a hundred.
const POINT: i64 = 10_000;
/// All wishes. A new one is a file in this folder and a line here.
pub const WISHES: [Wish; 5] = [taints::WISH, nodes::WISH, spread::WISH, near::WISH, images::WISH];

/// What the wishes add for each of these nodes, and how much each of them says, already weighed. Nothing where the pod
/// has no wishes.
#[must_use]
pub fn wished(
    scene: &Scene<'_>,
    subject: &Subject<'_>,
    nodes: &[usize],
) -> Vec<(&'static str, Vec<i64>)> {
    let apply = WISHES.iter().filter(|wish| (wish.applies)(scene, subject));
    let scored = apply.map(|wish| {
        let raw: Vec<_> = nodes.iter().map(|node| (wish.of)(scene, subject, *node)).collect();
        let points = scaled(wish.scale, &raw).into_iter();
        (wish.name, points.map(|points| points * wish.weight * POINT).collect())
    });
    scored.collect()
}

fn scaled(scale: Scale, raw: &[Option<i64>]) -> Vec<i64> {
    let known = || raw.iter().flatten().copied();
    let (least, most) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
    let part = |of: i64, whole: i64| of.saturating_mul(MOST) / whole.max(1);
    let one = |raw: i64| match scale {
        Scale::Same => raw.clamp(0, MOST),
        Scale::Share if most <= 0 => 0,
        Scale::Share => part(raw.max(0), most),
        Scale::Less | Scale::Fewer if most <= 0 => MOST,
        Scale::Less => MOST - part(raw.max(0), most),
        Scale::Between if most == least => 0,
        Scale::Between => part(raw - least, most - least),
        Scale::Fewer => part(most + least - raw, most),
    };
    raw.iter().map(|raw| raw.map_or(0, one)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_wishes_are_brought_to_a_hundred() {
        let raw = [Some(0), Some(5), None, Some(10)];
        for (scale, points) in [
            (Scale::Same, [0, 5, 0, 10]),
            (Scale::Share, [0, 50, 0, 100]),
            (Scale::Less, [100, 50, 0, 0]),
            (Scale::Between, [0, 50, 0, 100]),
            (Scale::Fewer, [100, 50, 0, 0]),
        ] {
            assert_eq!(scaled(scale, &raw), points);
        }
        assert_eq!(scaled(Scale::Between, &[Some(-30), Some(-10), Some(-20)]), [0, 100, 50]);
        assert_eq!(scaled(Scale::Fewer, &[Some(2), Some(4)]), [100, 50]);
    }
}
