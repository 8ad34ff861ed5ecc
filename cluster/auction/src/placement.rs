//! Which nodes: the fewest, and what stands well stays where it is.

use crate::decision::Decision;
use crate::picture::Picture;

/// Takes `count` GPUs from the nodes with most free, one after the other; ties go to the first
/// node. Empty where they are not there.
pub fn emptiest_first(free: &mut [u32], count: u32) -> Vec<usize> {
    if free.iter().map(|gpus| u64::from(*gpus)).sum::<u64>() < u64::from(count) {
        return Vec::new();
    }
    let mut taken = Vec::with_capacity(count as usize);
    let mut missing = count;
    while missing > 0 {
        let mut node = 0;
        for (index, gpus) in free.iter().enumerate() {
            if *gpus > free[node] {
                node = index;
            }
        }
        let here = free[node].min(missing);
        taken.extend(std::iter::repeat_n(node, here as usize));
        free[node] -= here;
        missing -= here;
    }
    taken
}

/// Takes `count` GPUs on the fewest nodes: the fullest node that still holds them all, or whole
/// empty nodes and the rest as that. Empty where they are not there.
pub fn fewest_nodes(free: &mut [u32], count: u32) -> Vec<usize> {
    if free.iter().map(|gpus| u64::from(*gpus)).sum::<u64>() < u64::from(count) {
        return Vec::new();
    }
    let mut taken = Vec::with_capacity(count as usize);
    let mut missing = count;
    while missing > 0 {
        let fits = (0..free.len()).filter(|node| free[*node] >= missing);
        let node = fits
            .min_by_key(|node| free[*node])
            .or_else(|| (0..free.len()).max_by_key(|node| (free[*node], std::cmp::Reverse(*node))));
        let Some(node) = node else { break };
        let here = free[node].min(missing);
        taken.extend(std::iter::repeat_n(node, here as usize));
        free[node] -= here;
        missing -= here;
    }
    taken.sort_unstable();
    taken
}

/// On how many nodes an allocation lies.
#[must_use]
pub fn nodes_of(allocation: &[usize]) -> u32 {
    let mut nodes: Vec<_> = allocation.to_vec();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.len() as u32
}

/// GPUs that are free when `allocations` are held. An allocation that no longer fits (its node
/// vanished or shrank) is emptied.
fn free_after(picture: &Picture, allocations: &mut [Vec<usize>]) -> Vec<u32> {
    let mut free: Vec<u32> = picture.nodes.iter().map(|node| node.gpus).collect();
    for allocation in allocations {
        let mut after = free.clone();
        let fits = allocation.iter().all(|node| match after.get_mut(*node) {
            Some(gpus) if *gpus > 0 => {
                *gpus -= 1;
                true
            }
            _ => false,
        });
        if fits {
            free = after;
        } else {
            allocation.clear();
        }
    }
    free
}

/// Gives each job its gang of `wanted` GPUs: those that run keep their place, the others follow
/// in `order`, each where `places` finds room for it.
pub(crate) fn gangs(
    picture: &Picture,
    order: &[usize],
    wanted: &[u32],
    places: fn(&mut [u32], u32) -> Vec<usize>,
) -> Decision {
    let mut allocations: Vec<Vec<usize>> = picture
        .jobs
        .iter()
        .zip(wanted)
        .map(|(job, wanted)| {
            let same = job.allocation.len() == *wanted as usize;
            if same { job.allocation.clone() } else { Vec::new() }
        })
        .collect();
    let mut free = free_after(picture, &mut allocations);
    for job in order.iter().copied() {
        if allocations[job].is_empty() && wanted[job] > 0 {
            allocations[job] = places(&mut free, wanted[job]);
        }
    }
    Decision { allocations }
}
