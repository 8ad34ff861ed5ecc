//! What this machine has, and what of it is in use: CPUs and memory, as far as we may use them.
//!
//! A node that runs in a container or under a limit has what its control groups leave it, not
//! what the hardware has.

use crate::process::{cgroup::value_of, identity};
use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// CPUs, in thousandths.
    pub cpu_milli: u64,
    /// Memory.
    pub memory_bytes: u64,
}

/// What is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all CPUs since the machine started; two of these make a rate.
    pub cpu: Duration,
    /// Memory that is not available to a new program.
    pub memory_bytes: u64,
}

/// Finds out what this process may use.
pub fn capacity() -> io::Result<Capacity> {
    let hardware = std::thread::available_parallelism()?.get() as u64 * 1000;
    let total = meminfo("MemTotal")?;
    let limits = Limits::of(Path::new("/sys/fs/cgroup"), &own_groups());
    Ok(Capacity {
        cpu_milli: limits.cpu_milli.map_or(hardware, |limit| limit.min(hardware)),
        memory_bytes: limits.memory_bytes.map_or(total, |limit| limit.min(total)),
    })
}

/// What is in use on the whole machine.
pub fn usage() -> io::Result<Usage> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_ascii_whitespace().skip(1).flat_map(str::parse).collect();
    // user nice system idle iowait irq softirq steal guest guest_nice, in hundredths of a second;
    // the last two are part of the first two.
    let busy = ticks.iter().take(8).enumerate().filter(|(i, _)| !matches!(i, 3 | 4));
    let cpu = Duration::from_millis(busy.map(|(_, ticks)| ticks * 10).sum());
    let memory_bytes = meminfo("MemTotal")?.saturating_sub(meminfo("MemAvailable")?);
    Ok(Usage { cpu, memory_bytes })
}

/// The CPUs of the machine that are on, whatever this process may use of them: containers may use others.
pub fn cpus() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let is_one = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    Ok(stat.lines().filter(is_one).count().max(1) as u64)
}

/// What this process has used since it started, and the memory that it has.
pub fn own_usage() -> io::Result<Usage> {
    let missing =
        || io::Error::new(io::ErrorKind::NotFound, "/proc has nothing about this process");
    let own = identity::stat(std::process::id()).ok_or_else(missing)?;
    let memory_bytes = own.resident_pages * rustix::param::page_size() as u64;
    // Hundredths of a second, as in /proc/stat.
    Ok(Usage { cpu: Duration::from_millis(own.cpu_ticks * 10), memory_bytes })
}

/// All memory of the machine, whatever of it this process may use.
pub fn memory() -> io::Result<u64> {
    meminfo("MemTotal")
}

fn meminfo(key: &str) -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kilobytes = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|k| k << 10).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/meminfo has no {key}"))
    })
}

/// `(controllers, path)` of each line of `/proc/self/cgroup`; no controllers for version 2.
fn own_groups() -> Vec<(String, String)> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
        })
        .collect()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Limits {
    cpu_milli: Option<u64>,
    memory_bytes: Option<u64>,
}

impl Limits {
    /// The tightest limits on the way from our groups up to the root.
    fn of(root: &Path, groups: &[(String, String)]) -> Self {
        let mut limits = Self::default();
        let unified = root.join("cgroup.controllers").exists();
        for (controllers, path) in groups {
            let tree = if controllers.is_empty() {
                if !unified {
                    continue;
                }
                root.to_owned()
            } else {
                root.join(controllers)
            };
            let leaf = tree.join(path.trim_start_matches('/'));
            for folder in leaf.ancestors().take_while(|folder| folder.starts_with(&tree)) {
                limits.tighten(folder);
            }
        }
        limits
    }

    fn tighten(&mut self, folder: &Path) {
        let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        let least = |a: Option<u64>, b: Option<u64>| [a, b].into_iter().flatten().min();
        let pair = read("cpu.max").and_then(|text| {
            let (quota, period) = text.trim().split_once(' ')?;
            Some((quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?))
        });
        let pair =
            pair.or_else(|| Some((number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)));
        let cpu =
            pair.filter(|(_, period)| *period > 0).map(|(quota, period)| quota * 1000 / period);
        self.cpu_milli = least(self.cpu_milli, cpu);
        let memory = number("memory.max").or_else(|| number("memory.limit_in_bytes"));
        self.memory_bytes = least(self.memory_bytes, memory);
        let stat = read("memory.stat");
        let above = stat.and_then(|text| value_of(&text, "hierarchical_memory_limit"));
        self.memory_bytes = least(self.memory_bytes, above);
    }
}

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// All.
    pub total_bytes: u64,
    /// What an ordinary user may still write.
    pub free_bytes: u64,
}

/// The file system that holds a path.
pub fn disk(path: &Path) -> io::Result<Disk> {
    let path: PathBuf = path.to_owned();
    let found = rustix::fs::statvfs(&path)?;
    Ok(Disk {
        total_bytes: found.f_blocks * found.f_frsize,
        free_bytes: found.f_bavail * found.f_frsize,
    })
}

/// Whether an interface of this machine has the address.
#[must_use]
pub fn has_address(address: IpAddr) -> bool {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return false };
    let addresses = interfaces.filter_map(|interface| interface.address);
    addresses.into_iter().any(|has| match (has.as_sockaddr_in(), has.as_sockaddr_in6()) {
        (Some(v4), _) => IpAddr::V4(v4.ip()) == address,
        (None, Some(v6)) => IpAddr::V6(v6.ip()) == address,
        (None, None) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let leaf = root.path().join("a/b");
        fs::create_dir_all(&leaf).unwrap();
        let write = |file: &str, text: &str| fs::write(root.path().join(file), text).unwrap();
        write("cgroup.controllers", "cpu memory");
        write("a/cpu.max", "150000 100000\n");
        write("a/b/cpu.max", "max 100000\n");
        write("a/b/memory.max", "1000\n");
        write("a/memory.max", "max\n");
        let limits = Limits::of(root.path(), &[(String::new(), "/a/b".into())]);
        let expected = Limits { cpu_milli: Some(1500), memory_bytes: Some(1000) };
        assert_eq!(limits, expected);
    }

    #[test]
    fn this_machine_has_something_and_uses_some_of_it() {
        let (capacity, usage) = (capacity().unwrap(), usage().unwrap());
        assert!(capacity.cpu_milli > 0 && capacity.memory_bytes > 1 << 20);
        assert!(usage.memory_bytes > 0 && !usage.cpu.is_zero());
        assert!(cpus().unwrap() * 1000 >= capacity.cpu_milli);
        assert!(own_usage().unwrap().memory_bytes > 0);
        assert!(disk(Path::new("/")).unwrap().total_bytes > 0);
        assert!(has_address([127, 0, 0, 1].into()) && !has_address([192, 0, 2, 7].into()));
    }
}
