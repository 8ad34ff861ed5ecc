//! Makes rates of what is counted of each container: a plain function of one reading and the one before.
//!
//! The CPU of a container is what it used since the last reading, over the time since then; nothing is told of it before the
//! second. Of one that counts less than before, some processes were not found: what they used may come back at once, so
//! that nothing is told before two more readings agree. More than the machine has is told of nobody.

use impresario_client::protocol::usage::{Amounts, CONTAINERS, ContainerUsage, PodUsage, Report};
use impresario_host::{ContainerId, Used, machine};
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// How often what is used is read and told.
pub const SAMPLING: Duration = Duration::from_secs(5);
/// A rate over less than this says nothing: what the kernel counts is in hundredths of a second.
const SHORTEST_WINDOW: Duration = Duration::from_millis(500);

/// What was read last of something that counts its CPU.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    cpu: Duration,
    /// It was less than the one before.
    fell: bool,
}

/// What was read last, of everything here.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    containers: HashMap<ContainerId, Reading>,
    own: Option<Reading>,
    last: Option<Instant>,
    /// Whether the last reading failed.
    pub(super) fails: bool,
}

/// One reading: when, of what.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) at: Instant,
    pub(super) now: Timestamp,
    pub(super) used: Vec<Used>,
    /// What the node's own process uses; nothing for one of many nodes of a process.
    pub(super) own: Option<machine::Usage>,
    /// The CPUs that the machine has, where anything runs on them.
    pub(super) cpus: Option<u64>,
}

impl Sampler {
    /// What is to be told after this reading, but for who tells it. What is not in it is forgotten.
    pub(super) fn take(&mut self, node: &str, read: Read) -> Report {
        let Read { at, now, mut used, own, cpus } = read;
        used.sort_by(|a, b| (&a.pod_uid, &a.container).cmp(&(&b.pod_uid, &b.container)));
        used.truncate(CONTAINERS);
        let mut readings = HashMap::with_capacity(used.len());
        let mut pods: BTreeMap<String, PodUsage> = BTreeMap::new();
        let mut amounts = Amounts::default();
        let last = self.last.replace(at);
        for one in used {
            let cpu = one.stats.cpu;
            let before = self.containers.get(&one.id).copied();
            let over =
                before.map_or(Duration::ZERO, |before| at.saturating_duration_since(before.at));
            let fell = before.is_some_and(|before| cpu < before.cpu);
            let rate = match before {
                // Too soon after the last one: this goes on from there.
                Some(before) if over < SHORTEST_WINDOW => {
                    readings.insert(one.id, before);
                    continue;
                }
                Some(before) if !fell && !before.fell => {
                    let rate = nanos_per_second(cpu.saturating_sub(before.cpu), over);
                    possible(rate, cpus)
                }
                _ => None,
            };
            readings.insert(one.id, Reading { at, cpu, fell });
            let memory_bytes = one.stats.memory_bytes;
            amounts = amounts.plus(Amounts { cpu_nanos: rate.unwrap_or(0), memory_bytes });
            let Some(cpu_nanos) = rate else { continue };
            let pod = pods.entry(one.pod_uid).or_insert_with_key(|uid| PodUsage {
                uid: uid.clone(),
                window_ms: 0,
                containers: Vec::new(),
            });
            pod.window_ms = pod.window_ms.max(millis(over));
            let amounts = Amounts { cpu_nanos, memory_bytes };
            pod.containers.push(ContainerUsage { name: one.container, amounts });
        }
        self.containers = readings;
        if let Some(own) = own {
            let rate = self.own.map_or(0, |before| {
                let over = at.saturating_duration_since(before.at);
                nanos_per_second(own.cpu.saturating_sub(before.cpu), over)
            });
            self.own = Some(Reading { at, cpu: own.cpu, fell: false });
            amounts = amounts.plus(Amounts { cpu_nanos: rate, memory_bytes: own.memory_bytes });
        }
        Report {
            node: node.to_owned(),
            taken_ms: now.as_millisecond(),
            window_ms: last.map_or(0, |last| millis(at.saturating_duration_since(last))),
            amounts,
            pods: pods.into_values().collect(),
        }
    }
}

/// A rate, as far as so many CPUs have it. They do not add up to the last hundredth: a little more is as much as there is,
/// and what is much more was not used in this time, but by something of which nothing was known before.
fn possible(rate: u64, cpus: Option<u64>) -> Option<u64> {
    let Some(cpus) = cpus else { return Some(rate) };
    let most = cpus.saturating_mul(1_000_000_000);
    (rate <= most.saturating_add(most / 4)).then_some(rate.min(most))
}

/// Billionths of a CPU that were used on average over a time.
fn nanos_per_second(used: Duration, over: Duration) -> u64 {
    let over = over.as_nanos().max(1);
    u64::try_from(used.as_nanos().saturating_mul(1_000_000_000) / over).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_host::ContainerStats;
    use impresario_runtime::clock;
    use k8s_openapi::jiff::SignedDuration;

    /// Container `c` of pod `p`, which has used so many milliseconds of a CPU.
    fn used(cpu_ms: u64) -> Used {
        Used {
            id: ContainerId("p/c/0".into()),
            pod_uid: "p".into(),
            container: "c".into(),
            stats: ContainerStats {
                cpu: Duration::from_millis(cpu_ms),
                memory_bytes: 1 << 20,
                processes: 1,
            },
        }
    }

    type Row = (u64, u64, Option<(u64, u64)>);

    #[test]
    fn the_cpu_of_a_container_is_what_it_used_since_the_last_reading() {
        let (begin, start) = (clock::now(), Timestamp::UNIX_EPOCH);
        // Seconds after the first reading | ms used | milli CPUs that are told, and their window in s.
        let tables: [&[Row]; 5] = [
            // Nothing before the second.
            &[(0, 90_000, None), (5, 95_000, Some((1000, 5))), (10, 95_000, Some((0, 5)))],
            // It counts less than before, and what was missing is back: that was not used in this time.
            &[
                (0, 90_000, None),
                (5, 80_000, None),
                (10, 95_000, None),
                (15, 96_000, Some((200, 5))),
            ],
            // A process has left for good.
            &[
                (0, 90_000, None),
                (5, 80_000, None),
                (10, 80_500, None),
                (15, 81_000, Some((100, 5))),
            ],
            // What a process used in all its life comes in at once: more than four CPUs can have done.
            &[(0, 1000, None), (5, 3_600_000, None), (10, 3_605_000, Some((1000, 5)))],
            // All of them, and not read to the hundredth.
            &[(0, 1000, None), (5, 21_100, Some((4000, 5)))],
        ];
        for table in tables {
            let mut sampler = Sampler::default();
            for (after, ms, expected) in table {
                let now = start + SignedDuration::from_secs(1000 + *after as i64);
                let at = begin + Duration::from_secs(*after);
                let used = vec![used(*ms)];
                let read = Read { at, now, used, own: None, cpus: Some(4) };
                let report = sampler.take("n", read);
                let told = report.pods.first().map(|pod| {
                    (pod.containers[0].amounts.cpu_nanos / 1_000_000, pod.window_ms / 1000)
                });
                assert_eq!(told, *expected, "after {after} s in {table:?}");
                assert_eq!(report.amounts.memory_bytes, 1 << 20);
            }
        }
    }

    #[test]
    fn a_node_uses_what_its_containers_and_its_own_process_use() {
        let (at, now) = (clock::now(), Timestamp::UNIX_EPOCH);
        let mut sampler = Sampler::default();
        let own = |ms| Some(machine::Usage { cpu: Duration::from_millis(ms), memory_bytes: 7 });
        let cpus = Some(4);
        let read = Read { at, now, used: vec![used(1000)], own: own(1000), cpus };
        let memory_bytes = 7 + (1 << 20);
        assert_eq!(sampler.take("n", read).amounts, Amounts { cpu_nanos: 0, memory_bytes });
        let later = Duration::from_secs(5);
        let used = vec![used(2250)];
        let read = Read { at: at + later, now, used, own: own(2000), cpus };
        let report = sampler.take("n", read);
        assert_eq!(report.amounts.cpu_nanos, 200_000_000 + 250_000_000);
        assert_eq!((report.amounts.memory_bytes, report.window_ms), (memory_bytes, 5000));
        // What is gone is forgotten.
        let read = Read { at: at + 2 * later, now, used: Vec::new(), own: None, cpus };
        assert!(sampler.take("n", read).pods.is_empty() && sampler.containers.is_empty());
    }
}
