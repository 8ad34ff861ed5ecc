//! Makes rates of what is counted of each container: a plain function of one reading and the one before.
//!
//! The CPU of a container is what it used since the last reading, over the time since then. At its first reading that is
//! what it used since its start, where this was since about the reading before; of one that an earlier process left running
//! nothing is told before the second.

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
}

/// What was read last, of everything here.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    containers: HashMap<ContainerId, Reading>,
    own: Option<Reading>,
    last: Option<Instant>,
}

/// One reading: when, of what.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) at: Instant,
    pub(super) now: Timestamp,
    pub(super) used: Vec<Used>,
    /// What the node's own process uses; nothing for one of many nodes of a process.
    pub(super) own: Option<machine::Usage>,
}

impl Sampler {
    /// What is to be told after this reading, but for who tells it. What is not in it is forgotten.
    pub(super) fn take(&mut self, node: &str, read: Read) -> Report {
        let Read { at, now, mut used, own } = read;
        used.sort_by(|a, b| (&a.pod_uid, &a.container).cmp(&(&b.pod_uid, &b.container)));
        used.truncate(CONTAINERS);
        let mut readings = HashMap::with_capacity(used.len());
        let mut pods: BTreeMap<String, PodUsage> = BTreeMap::new();
        let mut amounts = Amounts::default();
        let last = self.last.replace(at);
        for one in used {
            let cpu = one.stats.cpu;
            let before = self.containers.get(&one.id).copied();
            let since_start = Duration::try_from(now.duration_since(one.started_at));
            let since_start = since_start.unwrap_or_default();
            let (rate, over) = match before {
                // Too soon after the last one: this goes on from there.
                Some(before) if at.saturating_duration_since(before.at) < SHORTEST_WINDOW => {
                    readings.insert(one.id, before);
                    continue;
                }
                Some(before) => {
                    let over = at.saturating_duration_since(before.at);
                    (Some(nanos_per_second(cpu.saturating_sub(before.cpu), over)), over)
                }
                None if (SHORTEST_WINDOW..2 * SAMPLING).contains(&since_start) => {
                    (Some(nanos_per_second(cpu, since_start)), since_start)
                }
                None => (None, Duration::ZERO),
            };
            readings.insert(one.id, Reading { at, cpu });
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
            self.own = Some(Reading { at, cpu: own.cpu });
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

    /// Container `c` of pod `p`, which has used so many milliseconds of a CPU and began so many seconds ago.
    fn used(cpu_ms: u64, age_s: i64, now: Timestamp) -> Used {
        Used {
            id: ContainerId("p/c/0".into()),
            pod_uid: "p".into(),
            container: "c".into(),
            started_at: now - SignedDuration::from_secs(age_s),
            stats: ContainerStats {
                cpu: Duration::from_millis(cpu_ms),
                memory_bytes: 1 << 20,
                processes: 1,
            },
        }
    }

    type Row = (u64, u64, i64, Option<(u64, u64)>);

    #[test]
    fn the_cpu_of_a_container_is_what_it_used_since_the_last_reading() {
        let (begin, start) = (clock::now(), Timestamp::UNIX_EPOCH);
        // Seconds after the first reading | ms used | age in s | milli CPUs that are told, and their window in s.
        let tables: [&[Row]; 4] = [
            // Young at its first reading: since its start.
            &[(0, 400, 4, Some((100, 4))), (5, 1400, 9, Some((200, 5)))],
            // Left by an earlier process: nothing before the second.
            &[(0, 90_000, 900, None), (5, 95_000, 905, Some((1000, 5)))],
            // It counts less than before: a process has left its session. It is not told as less than nothing.
            &[(0, 90_000, 900, None), (5, 80_000, 905, Some((0, 5)))],
            // Just begun: nothing can be said yet.
            &[(0, 10, 0, None), (5, 2510, 5, Some((500, 5)))],
        ];
        for table in tables {
            let mut sampler = Sampler::default();
            for (after, ms, age, expected) in table {
                let now = start + SignedDuration::from_secs(1000 + *after as i64);
                let at = begin + Duration::from_secs(*after);
                let used = vec![used(*ms, *age, now)];
                let report = sampler.take("n", Read { at, now, used, own: None });
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
        let read = Read { at, now, used: Vec::new(), own: own(1000) };
        assert_eq!(sampler.take("n", read).amounts, Amounts { cpu_nanos: 0, memory_bytes: 7 });
        let later = Duration::from_secs(5);
        let read = Read { at: at + later, now, used: vec![used(1000, 4, now)], own: own(2000) };
        let report = sampler.take("n", read);
        assert_eq!(report.amounts.cpu_nanos, 200_000_000 + 250_000_000);
        assert_eq!((report.amounts.memory_bytes, report.window_ms), (7 + (1 << 20), 5000));
        // What is gone is forgotten.
        let read = Read { at: at + 2 * later, now, used: Vec::new(), own: None };
        assert!(sampler.take("n", read).pods.is_empty() && sampler.containers.is_empty());
    }
}
