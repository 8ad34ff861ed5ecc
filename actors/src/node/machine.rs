//! Finds out what this machine has: the only part of the node that looks at it directly.

use super::object::System;
use impresario_client::protocol::resources::{GPU, Resources};
use impresario_host::{
    devices::{GpuHealth, Gpus},
    machine,
};
use std::{fs, io};

/// How many pods a node takes unless it is told otherwise.
pub const PODS: u64 = 110;

/// What the machine has, and what of it pods may use: all but what is `reserved` for itself. Only
/// healthy GPUs can be given away.
pub fn capacity(gpus: &Gpus, reserved: &Resources) -> io::Result<(Resources, Resources)> {
    let found = machine::capacity()?;
    let devices = gpus.list();
    let mut capacity = Resources {
        cpu_milli: found.cpu_milli,
        memory_bytes: found.memory_bytes,
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
