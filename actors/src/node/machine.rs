//! Finds out what this machine has: the only part of the node that looks at it directly.

use super::object::System;
use impresario_client::protocol::resources::{GPU, Resources};
use impresario_host::{
    devices::{Gpu, GpuHealth},
    machine,
};
use serde::{Deserialize, Serialize};
use std::{fs, io};

/// How many pods a node takes unless it is told otherwise.
pub const PODS: u64 = 110;

/// A node's part of its machine: what several nodes of one machine offer is the machine once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which part, from 0.
    pub part: u16,
    /// How many parts there are; at least 1.
    pub of: u16,
}

impl Default for Share {
    /// The whole machine.
    fn default() -> Self {
        Self { part: 0, of: 1 }
    }
}

impl Share {
    /// This part of so many. All parts together are the whole; the first ones get what is left over.
    #[must_use]
    pub fn take(self, whole: u64) -> u64 {
        let of = u64::from(self.of.max(1));
        whole / of + u64::from(u64::from(self.part) < whole % of)
    }

    /// This part of a list in the driver's order: neighbours, which are likely to be linked, stay
    /// together.
    #[must_use]
    pub fn slice<T>(self, all: Vec<T>) -> Vec<T> {
        let before: u64 =
            (0..self.part).map(|part| Self { part, ..self }.take(all.len() as u64)).sum();
        let count = self.take(all.len() as u64);
        all.into_iter().skip(before as usize).take(count as usize).collect()
    }
}

/// What the node has of the machine, and what of it pods may use: all but what is `reserved` for
/// itself. `devices` are its own GPUs; only healthy ones can be given away.
pub fn capacity(
    share: Share,
    devices: &[Gpu],
    reserved: &Resources,
) -> io::Result<(Resources, Resources)> {
    let found = machine::capacity()?;
    let mut capacity = Resources {
        cpu_milli: share.take(found.cpu_milli),
        memory_bytes: share.take(found.memory_bytes),
        pods: PODS,
        ..Resources::default()
    };
    capacity.set(GPU, devices.len() as u64);
    let mut allocatable = capacity.without(reserved);
    let healthy = devices.iter().filter(|gpu| matches!(gpu.health, GpuHealth::Healthy)).count();
    allocatable.set(GPU, (healthy as u64).min(allocatable.gpus()));
    Ok((capacity, allocatable))
}

/// The machine and its operating system; what cannot be read stays empty.
pub fn system() -> System {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = read("/etc/os-release");
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    System {
        kernel: read("/proc/sys/kernel/osrelease"),
        os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
        machine_id: read("/etc/machine-id"),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_parts_together_are_the_whole_once(whole in 0..10_000_u64, of in 1..64_u16) {
            let shares = (0..of).map(|part| Share { part, of });
            prop_assert_eq!(shares.clone().map(|share| share.take(whole)).sum::<u64>(), whole);
            let devices: Vec<u64> = (0..whole % 20).collect();
            let divided: Vec<u64> = shares.flat_map(|share| share.slice(devices.clone())).collect();
            prop_assert_eq!(divided, devices);
        }
    }
}
