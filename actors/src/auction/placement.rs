//! On which nodes a job's pods train fastest: on the fewest, spread evenly over them. No IO.

use impresario_client::protocol::resources::Resources;
use impresario_client::protocol::training::Size;

/// For each node that is used its index in `free` and what it gets. `None` if the pods fit nowhere
/// in this way.
pub fn place(
    size: Size,
    parameter_server: &Resources,
    trainer: &Resources,
    free: &[Resources],
) -> Option<Vec<(usize, Size)>> {
    let mut nodes: Vec<usize> = (0..free.len()).collect();
    let room =
        |index: &usize| (free[*index].gpus(), free[*index].cpu_milli, free[*index].memory_bytes);
    nodes.sort_by_key(|index| (std::cmp::Reverse(room(index)), *index));
    (1..=nodes.len()).find_map(|count| {
        let chosen = &nodes[..count];
        let shares: Vec<(usize, Size)> = chosen
            .iter()
            .enumerate()
            .map(|(turn, node)| (*node, share(size, turn, count)))
            .collect();
        let fits = shares.iter().all(|(node, share)| {
            let mut needed = Resources::default();
            (0..share.parameter_servers).for_each(|_| needed.add(parameter_server));
            (0..share.trainers).for_each(|_| needed.add(trainer));
            free[*node].covers(&needed)
        });
        fits.then_some(shares)
    })
}

/// What the node with this turn gets: what is left over goes from the first on for parameter
/// servers, and from the last back for trainers, so that no node gets both.
fn share(size: Size, turn: usize, count: usize) -> Size {
    let part =
        |whole: u32, turn: usize| whole / count as u32 + u32::from(turn < whole as usize % count);
    Size {
        parameter_servers: part(size.parameter_servers, turn),
        trainers: part(size.trainers, count - 1 - turn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_nodes_that_hold_the_job_evenly_are_used() {
        let cpu = |milli| Resources { cpu_milli: milli, ..Resources::default() };
        let free = [cpu(1_000), cpu(4_000), cpu(2_500)];
        let size = |parameter_servers, trainers| Size { parameter_servers, trainers };
        let place = |p, w| place(size(p, w), &cpu(500), &cpu(1_000), &free);
        assert_eq!(place(2, 3), Some(vec![(1, size(2, 3))]));
        assert_eq!(place(2, 4), Some(vec![(1, size(1, 2)), (2, size(1, 2))]));
        assert_eq!(place(9, 9), None);
    }
}
