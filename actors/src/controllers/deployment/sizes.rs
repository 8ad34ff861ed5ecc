//! How many pods each replica set of a deployment is to have now: plain arithmetic.
//!
//! Whatever the sets are like, their sizes together never exceed [`Limits::most`], and nothing that is
//! available is given up while fewer than [`Limits::least`] would be left. What sets say of themselves may be late:
//! one that says of more available pods than it is to have does not grow before it has said how many are left,
//! since what it said would be taken for the pods that it is to get. (API reference,
//! RollingUpdateDeployment v1; Kubernetes documentation, "Deployments", "Proportional scaling".)

use super::super::part::{Round, part};
use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::cmp::Reverse;

/// What a deployment allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Whether the old goes bit by bit as the new comes; else all of it goes first.
    pub(super) rolling: bool,
    /// How many pods there are to be.
    pub(super) replicas: i32,
    /// How many more there may be on the way.
    pub(super) surge: i32,
    /// How many fewer may be available on the way.
    pub(super) unavailable: i32,
}

impl Limits {
    /// The limits of a deployment. A part of the surge is rounded up, one of what may be missing down; one pod
    /// may be missing where neither would be anything.
    pub(super) fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1).max(0);
        let strategy = spec.strategy.as_ref();
        let rolling = strategy.and_then(|it| it.type_.as_deref()) != Some("Recreate");
        if !rolling {
            return Self { rolling, replicas, surge: 0, unavailable: 0 };
        }
        let rolling_update = strategy.and_then(|it| it.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".into());
        let surge = rolling_update.and_then(|it| it.max_surge.as_ref()).unwrap_or(&quarter);
        let missing = rolling_update.and_then(|it| it.max_unavailable.as_ref()).unwrap_or(&quarter);
        let surge = part(surge, replicas, Round::Up);
        let mut unavailable = part(missing, replicas, Round::Down);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Self { rolling, replicas, surge, unavailable: unavailable.min(replicas) }
    }

    /// The most pods that there may be.
    pub(super) fn most(&self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    /// The fewest that must be available.
    pub(super) fn least(&self) -> i32 {
        self.replicas.saturating_sub(self.unavailable)
    }
}

/// One set, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Numbers {
    /// It has the template that the deployment has now.
    pub(super) is_new: bool,
    /// How many pods it is to have.
    pub(super) wanted: i32,
    /// How many of these are available.
    pub(super) available: i32,
    /// Whether more are said to be available than it is to have: some of them go.
    pub(super) unsure: bool,
    /// How many it has, those that are ending among them.
    pub(super) pods: i32,
    /// Whether what is said of it was said after it was changed last.
    pub(super) said: bool,
    /// How many pods the deployment asked for when the set got its size.
    pub(super) asked: Option<i32>,
    /// How many it might have then.
    pub(super) most: Option<i32>,
}

/// Whether the deployment asks for another number of pods than when its sets got their sizes.
pub(super) fn asked_anew(limits: &Limits, sets: &[Numbers]) -> bool {
    let mut active = sets.iter().filter(|set| set.wanted > 0);
    active.any(|set| set.asked.is_some_and(|asked| asked != limits.replicas))
}

/// The next step from the old to the new: as many new ones as there is room for, as few old ones as can be
/// spared. Those that are not available go first, then the oldest.
pub(super) fn rolled(limits: &Limits, sets: &[Numbers]) -> Vec<i32> {
    let mut sizes: Vec<i32> = sets.iter().map(|set| set.wanted).collect();
    let Some(new) = sets.iter().position(|set| set.is_new) else { return sizes };
    let room = i64::from(limits.most()) - sum(&sizes);
    if sizes[new] > limits.replicas {
        sizes[new] = limits.replicas;
    } else if room > 0 && !sets[new].unsure {
        sizes[new] += narrow(room).min(limits.replicas - sizes[new]);
    }

    let unavailable = i64::from(sizes[new]) - i64::from(sets[new].available.min(sizes[new]));
    let mut spare = sum(&sizes) - i64::from(limits.least()) - unavailable;
    let old = || sets.iter().enumerate().filter(|(_, set)| !set.is_new);
    for (at, set) in old() {
        let broken = set.wanted - set.available;
        let gone = narrow(spare).min(broken).max(0);
        sizes[at] -= gone;
        spare -= i64::from(gone);
    }
    let available = sets.iter().zip(&sizes).map(|(set, size)| i64::from(set.available.min(*size)));
    let mut spare = spare.min(available.sum::<i64>() - i64::from(limits.least()));
    for (at, _) in old() {
        let gone = narrow(spare).min(sizes[at]).max(0);
        sizes[at] -= gone;
        spare -= i64::from(gone);
    }
    sizes
}

/// All of the old goes; when its last pod has ended, all of the new comes.
pub(super) fn recreated(limits: &Limits, sets: &[Numbers]) -> Vec<i32> {
    let over = sets.iter().all(|set| set.is_new || (set.wanted == 0 && set.pods == 0 && set.said));
    let size = |set: &Numbers| match (set.is_new, over) {
        (true, true) if !set.unsure => limits.replicas,
        (true, true) => set.wanted,
        (true, false) => set.wanted.min(limits.replicas),
        (false, _) => 0,
    };
    sets.iter().map(size).collect()
}

/// Another number of pods is asked for: the only set that has some gets it. Where there are several, each
/// keeps its part of the whole, so that neither the old nor the new is all that is left if one of them fails.
/// `None` where one that is to grow has to say first how many it has.
pub(super) fn scaled(limits: &Limits, sets: &[Numbers]) -> Option<Vec<i32>> {
    let mut sizes: Vec<i32> = sets.iter().map(|set| set.wanted).collect();
    let new = sets.iter().position(|set| set.is_new);
    let active: Vec<usize> = (0..sets.len()).filter(|at| sets[*at].wanted > 0).collect();
    match active.as_slice() {
        [] => {
            if let Some(at) = new.or(sets.len().checked_sub(1)) {
                sizes[at] = limits.replicas;
            }
        }
        [one] => sizes[*one] = limits.replicas,
        several if new.is_some_and(|new| saturated(limits, &sets[new])) => {
            for at in several.iter().filter(|at| Some(**at) != new) {
                sizes[*at] = 0;
            }
        }
        several if limits.rolling => in_parts(limits, sets, several.to_vec(), &mut sizes),
        _ => {}
    }
    let waits = sets.iter().zip(&sizes).any(|(set, size)| *size > set.wanted && set.unsure);
    (!waits).then_some(sizes)
}

/// All is new, and available.
fn saturated(limits: &Limits, new: &Numbers) -> bool {
    let all = limits.replicas;
    new.wanted == all && new.asked == Some(all) && new.available == all
}

/// The difference is shared among these sets by their sizes; what is left over by rounding goes to the largest.
fn in_parts(limits: &Limits, sets: &[Numbers], mut active: Vec<usize>, sizes: &mut [i32]) {
    let now = i64::from(if limits.replicas > 0 { limits.most() } else { 0 });
    let total = sum(sizes);
    let to_add = now - total;
    // The newest first among equals where more are to come, the oldest where some are to go.
    active.sort_by_key(|at| (Reverse(sizes[*at]), if to_add > 0 { sets.len() - at } else { *at }));
    let mut added = 0;
    for at in &active {
        let size = i64::from(sizes[*at]);
        let before = sets[*at].most.map_or(total, i64::from).max(1);
        let part = (2 * size * now + before) / (2 * before) - size;
        let left = to_add - added;
        let part = if to_add > 0 { part.min(left).max(0) } else { part.max(left).min(0) };
        sizes[*at] = narrow(size + part);
        added += part;
    }
    if let Some(largest) = active.first() {
        sizes[*largest] = narrow(i64::from(sizes[*largest]) + to_add - added);
    }
}

fn sum(sizes: &[i32]) -> i64 {
    sizes.iter().map(|size| i64::from(*size)).sum()
}

/// A size: neither negative nor more than there can be.
fn narrow(size: i64) -> i32 {
    i32::try_from(size.max(0)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::super::table::cells;
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn limits(replicas: i32, surge: &Value, unavailable: &Value) -> Limits {
        let spec = json!({"replicas": replicas, "selector": {}, "template": {}, "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}});
        Limits::of(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_percentage_of_more_is_rounded_up_one_of_fewer_down_and_both_are_not_nothing() {
        for (replicas, surge, unavailable, most, least) in [
            (10, json!("25%"), json!("25%"), 13, 8),
            (1, json!("25%"), json!("25%"), 2, 1),
            (4, json!("25%"), json!("25%"), 5, 3),
            (3, json!(1), json!(1), 4, 2),
            (3, json!("0%"), json!("10%"), 3, 2),
            (3, json!(0), json!(0), 3, 2),
            (2, json!(0), json!(5), 2, 0),
            (0, json!("25%"), json!("25%"), 0, 0),
            (i32::MAX, json!("100%"), json!("100%"), i32::MAX, 0),
        ] {
            let limits = limits(replicas, &surge, &unavailable);
            assert_eq!(
                (limits.most(), limits.least()),
                (most, least),
                "{replicas} {surge} {unavailable}"
            );
        }
        let spec = json!({"replicas": 3, "selector": {}, "template": {}, "strategy": {"type": "Recreate"}});
        let limits = Limits::of(&serde_json::from_value(spec).unwrap());
        assert_eq!((limits.rolling, limits.most(), limits.least()), (false, 3, 3));
    }

    /// Sets from `wanted/available`; the last is the new one. With `@asked/most` of the time of their size.
    fn sets(words: &str) -> Vec<Numbers> {
        let count = words.split_whitespace().count();
        let set = |(at, word): (usize, &str)| {
            let (now, then) = word.split_once('@').unwrap_or((word, ""));
            let pair = |text: &str| {
                let (a, b) = text.split_once('/')?;
                Some((a.parse::<i32>().unwrap(), b.parse::<i32>().unwrap()))
            };
            let (wanted, available) = pair(now).unwrap();
            Numbers {
                is_new: at + 1 == count,
                wanted,
                available: available.min(wanted),
                unsure: available > wanted,
                pods: available,
                said: true,
                asked: pair(then).map(|then| then.0),
                most: pair(then).map(|then| then.1),
            }
        };
        words.split_whitespace().enumerate().map(set).collect()
    }

    fn in_words(sizes: &[i32]) -> String {
        sizes.iter().map(i32::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn as_many_new_pods_come_as_there_is_room_for_and_as_many_old_ones_go_as_can_be_spared() {
        let table = "
            replicas | surge | unavailable | sets, the new one last | sizes
            10       | 3     | 2           | 10/10 0/0              | 8 3
            10       | 3     | 2           | 8/8 3/0                | 8 5
            10       | 3     | 2           | 8/8 5/3                | 5 5
            10       | 0     | 2           | 10/10 0/0              | 8 0
            10       | 0     | 2           | 8/8 0/0                | 8 2
            10       | 2     | 0           | 10/10 0/0              | 10 2
            10       | 2     | 0           | 10/10 2/2              | 8 2
            3        | 1     | 1           | 3/3 0/0                | 2 1
            3        | 1     | 1           | 1/1 2/2                | 0 3
            4        | 1     | 1           | 4/1 0/0                | 3 1
            4        | 1     | 0           | 4/2 0/0                | 4 1
            4        | 1     | 1           | 2/2 3/0                | 2 3
            4        | 1     | 1           | 1/1 2/2 0/0            | 1 2 2
            3        | 1     | 0           | 0/0 5/5                | 0 3
            5        | 5     | 0           | 5/5 0/5                | 5 0
            5        | 5     | 0           | 5/5 0/0                | 5 5
            5        | 5     | 0           | 5/9 5/5                | 0 5
            3        | 1     | 0           | 0/0 3/3                | 0 3
            0        | 1     | 1           | 2/2 0/0                | 0 0";
        for row in table.lines().skip(2) {
            let [replicas, surge, unavailable, given, wanted] = cells(row);
            let number = |text: &str| text.parse::<i32>().unwrap();
            let limits =
                limits(number(replicas), &json!(number(surge)), &json!(number(unavailable)));
            assert_eq!(in_words(&rolled(&limits, &sets(given))), wanted, "in row {row}");
        }
    }

    #[test]
    fn nothing_new_comes_by_recreation_before_the_last_old_pod_has_ended() {
        let limits = Limits { rolling: false, replicas: 3, surge: 0, unavailable: 0 };
        let old = |wanted, pods, said| Numbers { wanted, pods, said, ..Numbers::default() };
        let new = Numbers { is_new: true, said: true, ..Numbers::default() };
        for (old, sizes) in [
            (old(3, 3, true), [0, 0]),
            (old(0, 3, true), [0, 0]),
            (old(0, 0, false), [0, 0]),
            (old(0, 0, true), [0, 3]),
        ] {
            assert_eq!(recreated(&limits, &[old, new]), sizes, "{old:?}");
        }
    }

    #[test]
    fn another_number_of_pods_is_shared_by_what_each_set_has() {
        let table = "
            replicas | sets, the new one last         | asked anew | sizes
            5        | 3/3@3/4                        | yes        | 5
            3        | 3/3@3/4                        | no         | 3
            0        | 3/3@3/4                        | yes        | 0
            15       | 8/8@10/13 5/0@10/13            | yes        | 11 7
            5        | 8/8@10/13 5/0@10/13            | yes        | 5 3
            0        | 8/8@10/13 5/0@10/13            | yes        | 0 0
            4        | 1/1@3/4 4/4@4/7                | yes        | 0 4
            6        | 0/0 0/0                        | no         | 0 6
            6        | 0/0 0/1                        | no         | waits
            5        | 2/5@3/4                        | yes        | waits
            1        | 2/5@3/4                        | yes        | 1";
        for row in table.lines().skip(2) {
            let [replicas, given, anew, wanted] = cells(row);
            let limits = limits(replicas.parse().unwrap(), &json!(3), &json!(2));
            let sets = sets(given);
            assert_eq!(asked_anew(&limits, &sets), anew == "yes", "in row {row}");
            let sizes = scaled(&limits, &sets).map_or("waits".into(), |sizes| in_words(&sizes));
            assert_eq!(sizes, wanted, "in row {row}");
        }
    }

    /// A set whose actor tells late, or not at all for a while.
    #[derive(Debug, Clone, Copy, Default)]
    struct Late {
        wanted: i32,
        /// Pods that are available.
        real: i32,
        /// How many it said last.
        said: i32,
    }

    impl Late {
        fn deletes(&mut self) {
            self.real = self.real.min(self.wanted);
        }

        fn left(&self) -> i64 {
            self.real.min(self.wanted).into()
        }
    }

    proptest! {
        /// The way may turn back at any time, and who deletes pods may end before that is told.
        #[test]
        fn what_sets_tell_late_lets_no_rollout_fall_under_its_limit(
            replicas in 0..10_i32, surge in 0..11_i32, unavailable in 0..3_i32,
            before in proptest::collection::vec(0..10_i32, 2..4),
            events in proptest::collection::vec((0..5_u8, 0..3_usize), 0..60),
        ) {
            let limits = limits(replicas, &json!(surge), &json!(unavailable));
            let mut sets: Vec<Late> =
                before.iter().map(|size| Late { wanted: *size, real: *size, said: *size }).collect();
            let mut new = 0;
            let step = |sets: &mut Vec<Late>, new: usize| {
                let numbers: Vec<Numbers> = sets.iter().enumerate().map(|(at, set)| Numbers {
                    is_new: at == new, wanted: set.wanted, available: set.said.min(set.wanted),
                    unsure: set.said > set.wanted, ..Numbers::default()
                }).collect();
                let known: i64 = numbers.iter().map(|set| i64::from(set.available)).sum();
                for (set, size) in sets.iter_mut().zip(rolled(&limits, &numbers)) {
                    set.wanted = size;
                }
                let left: i64 = sets.iter().map(Late::left).sum();
                prop_assert!(left >= known.min(limits.least().into()), "{limits:?} {numbers:?} {sets:?}");
                Ok(())
            };
            for (event, at) in events {
                let at = at % sets.len();
                match event {
                    0 => new = at,
                    1 => sets[at].deletes(),
                    // What there was before it deleted some.
                    2 => {
                        sets[at].said = sets[at].real;
                        sets[at].deletes();
                    }
                    3 => sets[at].real = sets[at].real.max(sets[at].wanted),
                    _ => step(&mut sets, new)?,
                }
            }
            for _ in 0..100 {
                for set in &mut sets {
                    (set.real, set.said) = (set.wanted, set.wanted);
                }
                step(&mut sets, new)?;
            }
            let ends = sets.iter().enumerate().all(|(at, set)| set.wanted == if at == new { replicas } else { 0 });
            prop_assert!(ends, "{sets:?}");
        }

        /// Whatever becomes of the pods meanwhile.
        #[test]
        fn a_rollout_keeps_its_limits_and_ends(
            replicas in 0..20_i32, surge in 0..5_i32, unavailable in 0..5_i32,
            before in proptest::collection::vec(0..10_i32, 1..3),
            fates in proptest::collection::vec((0..3_usize, any::<bool>()), 0..60),
        ) {
            let limits = limits(replicas, &json!(surge), &json!(unavailable));
            let mut sets: Vec<Numbers> =
                before.iter().map(|size| Numbers { wanted: *size, available: *size, ..Numbers::default() }).collect();
            sets.push(Numbers { is_new: true, ..Numbers::default() });
            let mut most: i64 = i64::from(limits.most()).max(sets.iter().map(|set| i64::from(set.wanted)).sum());
            let mut step = |sets: &mut Vec<Numbers>| {
                let sizes = rolled(&limits, sets);
                let available: i64 = sets.iter().map(|set| i64::from(set.available)).sum();
                let left: i64 = sets.iter().zip(&sizes).map(|(set, size)| i64::from(set.available.min(*size))).sum();
                prop_assert!(left >= available.min(limits.least().into()), "{limits:?} {sets:?} {sizes:?}");
                prop_assert!(sum(&sizes) <= most, "{limits:?} {sets:?} {sizes:?}");
                prop_assert!(sizes.iter().all(|size| *size >= 0));
                most = i64::from(limits.most()).max(sum(&sizes));
                for (set, size) in sets.iter_mut().zip(sizes) {
                    set.wanted = size;
                    set.available = set.available.min(size);
                }
                Ok(())
            };
            for (at, comes) in fates {
                let set = at % sets.len();
                let set = &mut sets[set];
                set.available = if comes { set.wanted } else { set.available - set.available.min(1) };
                step(&mut sets)?;
            }
            for _ in 0..100 {
                for set in &mut sets {
                    set.available = set.wanted;
                }
                step(&mut sets)?;
            }
            let (new, old) = sets.split_last().unwrap();
            prop_assert_eq!(new.wanted, replicas);
            prop_assert!(old.iter().all(|set| set.wanted == 0), "{:?}", old);
        }
    }
}
