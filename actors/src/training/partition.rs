//! How a model's parameters are cut into shards, and shards divided among parameter servers.
//!
//! Blocks that are larger than the even share are cut, so that shards are of like size; small
//! neighbours go together, so that there are few requests. Each server gets nearly the same number
//! of parameters and of shards, and a change moves no more shards than it must. No IO, no chance.

use impresario_client::protocol::training::ShardRange;
use std::cmp::Reverse;

/// Cuts blocks of these lengths into about `count` shards.
pub fn cut(blocks: &[u64], count: usize) -> Vec<ShardRange> {
    let total: u64 = blocks.iter().sum();
    let share = total.div_ceil(count.max(1) as u64).max(1);
    let mut shards: Vec<ShardRange> = Vec::new();
    let (mut start, mut open) = (0, 0);
    let mut close = |start: &mut u64, length: u64| {
        if length > 0 {
            shards.push(ShardRange { shard: shards.len() as u32, start: *start, length });
            *start += length;
        }
    };
    for block in blocks {
        if open + block <= share {
            open += block;
            continue;
        }
        // It does not fit with what is open: that becomes a shard, unless cutting it evens out.
        let pieces = (open + block).div_ceil(share);
        if *block > share {
            let together = open + block;
            for piece in 0..pieces {
                close(&mut start, together * (piece + 1) / pieces - together * piece / pieces);
            }
            open = 0;
        } else {
            close(&mut start, open);
            open = *block;
        }
    }
    close(&mut start, open);
    shards
}

/// Divides shards among `servers` servers: for each shard the server's number. `before` says where
/// a shard is now, if that server stays.
pub fn assign(shards: &[ShardRange], before: &[Option<usize>], servers: usize) -> Vec<usize> {
    if servers == 0 {
        return Vec::new();
    }
    let most = shards.len().div_ceil(servers);
    let total: u64 = shards.iter().map(|shard| shard.length).sum();
    let share = total.div_ceil(servers as u64);
    if let Some(balanced) = balanced(shards, before, servers) {
        return balanced;
    }
    let mut load = vec![(0u64, 0usize); servers];
    let mut result: Vec<Option<usize>> = vec![None; shards.len()];
    let mut largest: Vec<usize> = (0..shards.len()).collect();
    largest.sort_by_key(|index| (Reverse(shards[*index].length), *index));
    // What is at a server stays there while the server is within its share.
    for index in &largest {
        if let Some(server) = before.get(*index).copied().flatten().filter(|s| *s < servers) {
            let (length, count) = &mut load[server];
            if *length + shards[*index].length <= share && *count < most {
                *length += shards[*index].length;
                *count += 1;
                result[*index] = Some(server);
            }
        }
    }
    for index in largest {
        if result[index].is_none() {
            let home = before.get(index).copied().flatten();
            let server = (0..servers)
                .min_by_key(|server| {
                    let (length, count) = load[*server];
                    (count >= most, length, home != Some(*server), *server)
                })
                .unwrap_or(0);
            load[server].0 += shards[index].length;
            load[server].1 += 1;
            result[index] = Some(server);
        }
    }
    let mut result: Vec<usize> = result.into_iter().map(|server| server.unwrap_or(0)).collect();
    even_out(shards, most, &mut load, &mut result);
    result
}

/// The map as it is, if every shard is at a server that stays and the servers' shares are alike.
fn balanced(shards: &[ShardRange], before: &[Option<usize>], servers: usize) -> Option<Vec<usize>> {
    let mut load = vec![(0u64, 0usize); servers];
    let mut map = Vec::with_capacity(shards.len());
    for (index, shard) in shards.iter().enumerate() {
        let server = before.get(index).copied().flatten()?;
        let (length, count) = load.get_mut(server)?;
        *length += shard.length;
        *count += 1;
        map.push(server);
    }
    let largest = shards.iter().map(|shard| shard.length).max()?;
    let lengths = || load.iter().map(|(length, _)| *length);
    let counts = load.iter().map(|(_, count)| *count);
    let alike = lengths().max()? - lengths().min()? <= largest
        && counts.max()? <= shards.len().div_ceil(servers);
    alike.then_some(map)
}

/// Moves a shard, or lets two change places, until no two servers differ by more than the largest shard.
///
/// What stayed may all be large: who has as many shards as anyone may have can still have few parameters.
/// While the difference is larger than every shard, the fuller server has a shard that the other can
/// take, or one that is larger than one of the other's; either makes the difference smaller, so this ends.
fn even_out(shards: &[ShardRange], most: usize, load: &mut [(u64, usize)], at: &mut [usize]) {
    let largest = shards.iter().map(|shard| shard.length).max().unwrap_or(0);
    loop {
        let full = (0..load.len()).max_by_key(|server| load[*server].0).unwrap_or(0);
        let low = (0..load.len()).min_by_key(|server| load[*server].0).unwrap_or(0);
        let difference = load[full].0 - load[low].0;
        if difference <= largest {
            return;
        }
        let of = |server: usize| -> Vec<usize> {
            (0..at.len()).filter(|index| at[*index] == server).collect()
        };
        let (fuller, lower) = (of(full), of(low));
        let moves = fuller.iter().filter(|_| load[low].1 < most).map(|index| (*index, None));
        let swaps =
            fuller.iter().flat_map(|index| lower.iter().map(|other| (*index, Some(*other))));
        let length = |other: Option<usize>| other.map_or(0, |other| shards[other].length);
        let best = moves
            .chain(swaps)
            .filter_map(|(index, other)| {
                let less = shards[index].length.checked_sub(length(other)).filter(|l| *l > 0)?;
                Some((difference.abs_diff(2 * less), index, other, less))
            })
            .min();
        let Some((_, index, other, less)) = best else { return };
        at[index] = low;
        load[full].0 -= less;
        load[low].0 += less;
        if let Some(other) = other {
            at[other] = full;
        } else {
            load[full].1 -= 1;
            load[low].1 += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shards_cover_the_parameters_without_gap_and_none_is_much_larger_than_its_share(
            blocks in prop::collection::vec(0u64..5_000, 1..30),
            count in 1usize..20,
        ) {
            let shards = cut(&blocks, count);
            let total: u64 = blocks.iter().sum();
            let mut at = 0;
            for (number, shard) in shards.iter().enumerate() {
                prop_assert_eq!((shard.shard as usize, shard.start), (number, at));
                prop_assert!(shard.length > 0);
                prop_assert!(shard.length <= total.div_ceil(count as u64));
                at += shard.length;
            }
            prop_assert_eq!(at, total);
        }

        #[test]
        fn servers_get_like_shares_and_a_balanced_map_stays_as_it_is(
            blocks in prop::collection::vec(1u64..5_000, 1..30),
            count in 4usize..20,
            servers in 1usize..5,
            later in 1usize..5,
        ) {
            let shards = cut(&blocks, count);
            let first = assign(&shards, &[], servers);
            let load = |map: &[usize], server: usize| -> u64 {
                shards.iter().zip(map).filter(|(_, at)| **at == server).map(|(s, _)| s.length).sum()
            };
            let largest = shards.iter().map(|shard| shard.length).max().unwrap_or(0);
            let stays: Vec<_> = first.iter().map(|server| Some(*server)).collect();
            let second = assign(&shards, &stays, later);
            for (map, used) in [(&first, servers), (&second, later)] {
                prop_assert!(map.iter().all(|server| *server < used));
                let loads: Vec<u64> = (0..used).map(|server| load(map, server)).collect();
                let spread = loads.iter().max().unwrap() - loads.iter().min().unwrap();
                prop_assert!(spread <= largest, "{:?} with {}", loads, largest);
                let counts = (0..used).map(|s| map.iter().filter(|at| **at == s).count());
                prop_assert!(counts.max().unwrap() <= shards.len().div_ceil(used));
            }
            prop_assert_eq!(&assign(&shards, &stays, servers), &first);
        }
    }

    #[test]
    fn a_server_that_keeps_all_the_large_shards_gives_some_of_them_away() {
        let shards = cut(
            &[
                1444, 2335, 3346, 1068, 4591, 2801, 3324, 2612, 1904, 3282, 4441, 2250, 1454, 2351,
                99, 4526, 1715, 326, 939, 3367,
            ],
            19,
        );
        let after = assign(&shards, &vec![Some(0); shards.len()], 2);
        let load = |server| -> u64 {
            shards.iter().zip(&after).filter(|(_, at)| **at == server).map(|(s, _)| s.length).sum()
        };
        let largest = shards.iter().map(|shard| shard.length).max().unwrap();
        assert!(load(0).abs_diff(load(1)) <= largest, "{} and {}", load(0), load(1));
    }

    #[test]
    fn only_the_shards_of_a_leaving_server_move() {
        let shards = cut(&[100; 8], 8);
        let three = assign(&shards, &[], 4);
        let before: Vec<_> = three.iter().map(|s| (*s < 3).then_some(*s)).collect();
        let after = assign(&shards, &before, 3);
        let moved = before.iter().zip(&after).filter(|(b, a)| b.is_some_and(|b| b != **a)).count();
        assert_eq!(moved, 0);
    }
}
