//! Whether pods find whole places. Pods and places alike are counted, not listed: what many take costs no more to
//! find out than what one does.

/// Pods, or places, of one kind: what each takes or has of every resource, and how many there are.
pub(crate) type Kind<'a> = (&'a [u64], u64);

/// Whether all that are `wanted` find a place: in one of the `pieces` (one node's amounts after the other's, as many
/// as there are `resources`), or where one of the `freed` is. The largest first, each in the first place that
/// holds it.
pub(crate) fn fit(
    pieces: &[u64],
    resources: usize,
    wanted: Vec<Kind<'_>>,
    freed: Vec<Kind<'_>>,
) -> bool {
    let wanted = alike(wanted);
    if wanted.is_empty() {
        return true;
    }
    let resources = resources.max(1);
    let counts = vec![1; pieces.len() / resources];
    let mut places = Places { resources, amounts: pieces.to_vec(), counts };
    for (pod, many) in alike(freed) {
        places.amounts.extend_from_slice(pod);
        places.counts.push(many);
    }
    wanted.into_iter().all(|(pod, many)| places.take(pod, many))
}

/// The largest first, those that are alike together. What takes nothing has a place anywhere.
fn alike(mut kinds: Vec<Kind<'_>>) -> Vec<Kind<'_>> {
    kinds.retain(|(pod, many)| *many > 0 && pod.iter().any(|amount| *amount > 0));
    kinds.sort_by(|a, b| b.0.cmp(a.0));
    kinds.dedup_by(|later, first| {
        let is_like = later.0 == first.0;
        if is_like {
            first.1 = first.1.saturating_add(later.1);
        }
        is_like
    });
    kinds
}

struct Places {
    resources: usize,
    amounts: Vec<u64>,
    counts: Vec<u64>,
}

impl Places {
    /// Takes places for so many pods; whether there were enough.
    fn take(&mut self, pod: &[u64], many: u64) -> bool {
        let mut left = many;
        // What is split off here holds no further pod of this kind.
        for at in 0..self.counts.len() {
            let each = self.held_by(at, pod);
            if each == 0 {
                continue;
            }
            let full = self.counts[at].min(left / each);
            left -= full * each;
            // Fewer than a place of this kind holds, if one is left.
            let last = if full < self.counts[at] { left } else { 0 };
            left -= last;
            self.split(at, pod, each, full);
            self.split(at, pod, last, u64::from(last > 0));
            if left == 0 {
                return true;
            }
        }
        left == 0
    }

    /// How many such pods one place of a kind holds.
    fn held_by(&self, at: usize, pod: &[u64]) -> u64 {
        let has = &self.amounts[at * self.resources..][..self.resources];
        let needs = has.iter().zip(pod).filter(|(_, needs)| **needs > 0);
        needs.map(|(has, needs)| has / needs).min().unwrap_or(0)
    }

    /// So many places of a kind get so many pods each.
    fn split(&mut self, at: usize, pod: &[u64], pods: u64, many: u64) {
        if many == 0 {
            return;
        }
        let place = at * self.resources..(at + 1) * self.resources;
        if self.counts[at] == many {
            let has = self.amounts[place].iter_mut().zip(pod);
            has.for_each(|(has, needs)| *has -= needs * pods);
        } else {
            self.counts[at] -= many;
            let has: Vec<u64> = self.amounts[place].to_vec();
            let left = has.iter().zip(pod).map(|(has, needs)| has - needs * pods);
            self.amounts.extend(left);
            self.counts.push(many);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One pod after the other, place by place.
    fn one_by_one(pieces: &[u64], wanted: &[Kind<'_>], freed: &[Kind<'_>]) -> bool {
        let mut places: Vec<[u64; 2]> =
            pieces.chunks_exact(2).map(|place| [place[0], place[1]]).collect();
        for (pod, many) in alike(freed.to_vec()) {
            places.extend((0..many).map(|_| [pod[0], pod[1]]));
        }
        let mut pods: Vec<_> =
            wanted.iter().flat_map(|(pod, many)| (0..*many).map(move |_| pod)).collect();
        pods.sort_by(|a, b| b.cmp(a));
        pods.into_iter().filter(|pod| pod.iter().any(|amount| *amount > 0)).all(|pod| {
            let place = places.iter_mut().find(|has| has[0] >= pod[0] && has[1] >= pod[1]);
            place.is_some_and(|has| {
                (has[0], has[1]) = (has[0] - pod[0], has[1] - pod[1]);
                true
            })
        })
    }

    #[test]
    fn millions_of_pods_are_placed_as_one_is() {
        let pod: &[u64] = &[1, 1];
        assert!(fit(&[], 2, vec![(pod, 1 << 40)], vec![(&[4, 4], 1 << 38)]));
        assert!(!fit(&[], 2, vec![(pod, (1 << 40) + 1)], vec![(&[4, 4], 1 << 38)]));
        assert!(fit(&[0, 0], 2, vec![(&[0, 0], u64::MAX)], vec![]));
        assert!(!fit(&[u64::MAX, 3], 2, vec![(&[0, 1], u64::MAX)], vec![]));
    }

    proptest! {
        #[test]
        fn what_fits_counted_is_room_for_all_and_pods_of_one_kind_fit_as_when_listed(
            pieces in prop::collection::vec(0u64..12, 0..8),
            pods in prop::collection::vec((0u64..6, 0u64..6, 0u64..7), 0..4),
            gone in prop::collection::vec((0u64..9, 0u64..9, 0u64..5), 0..3),
        ) {
            let pieces = &pieces[..pieces.len() / 2 * 2];
            let pods: Vec<([u64; 2], u64)> = pods.iter().map(|pod| ([pod.0, pod.1], pod.2)).collect();
            let gone: Vec<([u64; 2], u64)> = gone.iter().map(|pod| ([pod.0, pod.1], pod.2)).collect();
            let pods: Vec<Kind<'_>> = pods.iter().map(|(pod, many)| (&pod[..], *many)).collect();
            let gone: Vec<Kind<'_>> = gone.iter().map(|(pod, many)| (&pod[..], *many)).collect();
            for only in &pods {
                let only = vec![*only];
                prop_assert_eq!(fit(pieces, 2, only.clone(), gone.clone()), one_by_one(pieces, &only, &gone));
            }
            if fit(pieces, 2, pods.clone(), gone.clone()) {
                for resource in 0..2 {
                    let sum = |kinds: &[Kind<'_>]| kinds.iter().map(|(kind, many)| kind[resource] * many).sum::<u64>();
                    let all = pieces.chunks_exact(2).map(|place| place[resource]).sum::<u64>();
                    prop_assert!(sum(&pods) <= all + sum(&gone));
                }
            }
        }
    }
}
