//! Control groups of one container, in version 1 or 2, as far as this node may write there.
//!
//! They limit CPU, memory and the number of processes, weigh pods against each other by what they asked
//! for, count what is used, tell whether memory ran out, and find every process of
//! a container whatever it did to escape its group or session. Without them (no root, a
//! read-only tree) a node still runs containers; the caller says so in a warning.

use crate::container::{ContainerStats, Resources};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

const SWAP: &str = "the limit of memory with swap";
/// How far the group of all pods of all nodes is above that of a container: pod, node, all.
const ABOVE_ALL: usize = 3;

/// One file of a group.
#[derive(Debug)]
struct Setting {
    /// How many folders above the container's.
    above: usize,
    what: &'static str,
    controller: &'static str,
    file: &'static str,
    value: String,
}

/// Whether the machine can move memory to a disk.
fn has_swap() -> bool {
    // A line for the columns, then one for each.
    fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}

/// How many processes and threads one pod may have: half of what the machine can have at all, so that none
/// keeps all others from starting anything.
pub(crate) fn processes_of_a_pod() -> u64 {
    let most = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let most = most.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    most.min().unwrap_or(32_768_u64) / 2
}

/// What thousandths of a CPU weigh, as the kernel counts: a whole one is 1024, and there is no less than two.
pub(crate) fn cpu_shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(2, 262_144)
}

/// Where one container's groups are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cgroup {
    /// One tree for all controllers.
    Unified(PathBuf),
    /// One tree per controller: its name and the group's folder in it.
    Split(Vec<(String, PathBuf)>),
}

const ROOT: &str = "/sys/fs/cgroup";
const CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "memory", "freezer", "pids"];

/// The period of a CPU limit, in microseconds.
const PERIOD_US: u64 = 100_000;

impl Cgroup {
    /// The groups named by `path` (relative, below one folder of ours), when the machine has any.
    pub fn plan(path: &Path) -> Option<Self> {
        let root = Path::new(ROOT);
        let ours = Path::new("impresario").join(path);
        if root.join("cgroup.controllers").exists() {
            return Some(Self::Unified(root.join(ours)));
        }
        let trees: Vec<_> = CONTROLLERS
            .iter()
            .filter(|name| root.join(name).join("cgroup.procs").exists())
            .map(|name| ((*name).to_owned(), root.join(name).join(&ours)))
            .collect();
        (!trees.is_empty()).then_some(Self::Split(trees))
    }

    fn folders(&self) -> Vec<&PathBuf> {
        match self {
            Self::Unified(path) => vec![path],
            Self::Split(trees) => trees.iter().map(|(_, path)| path).collect(),
        }
    }

    fn folder(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::Unified(path) => Some(path),
            Self::Split(trees) => {
                trees.iter().find(|(name, _)| name == controller).map(|(_, path)| path.as_path())
            }
        }
    }

    /// Makes the groups and sets the limits; returns what could not be set, in words.
    /// On an error nothing of it is left. `pod_cpu_milli` is what the pod's containers together are
    /// entitled to.
    pub fn create(&self, resources: &Resources, pod_cpu_milli: u64) -> io::Result<Vec<String>> {
        if let Self::Unified(path) = self {
            enable_controllers(path);
        }
        for folder in self.folders() {
            // Another container's end may remove an empty folder above just then: once more.
            let made = (0..3).map(|_| fs::create_dir_all(folder)).find(Result::is_ok);
            if made.is_none() {
                let error = fs::create_dir_all(folder).err();
                self.remove();
                return Err(error.unwrap_or_else(|| io::ErrorKind::Interrupted.into()));
            }
        }
        let mut warnings = Vec::new();
        let groups = self.settings_above(pod_cpu_milli).into_iter().chain(self.settings(resources));
        for Setting { above, what, controller, file, value } in groups {
            let folder = self.folder(controller).and_then(|folder| folder.ancestors().nth(above));
            let Some(folder) = folder else {
                warnings.push(format!("{what} is not kept: no {controller} control group"));
                continue;
            };
            let path = folder.join(file);
            if what == SWAP && !path.exists() && !has_swap() {
                continue; // a machine without swap may have no limit for it, and needs none
            }
            if let Err(error) = fs::write(path, value) {
                warnings.push(format!("{what} is not kept: {file}: {error}"));
            }
        }
        Ok(warnings)
    }

    /// What the groups above a container's are set to. Without it what pods ask for would mean nothing
    /// between them: the kernel weighs a group against its neighbours alone.
    fn settings_above(&self, pod_cpu_milli: u64) -> Vec<Setting> {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        vec![
            // All pods against the rest of the machine, as the kubelet has it.
            Setting { above: ABOVE_ALL, ..self.weight("the pods' part of the CPU", cpus * 1000) },
            Setting { above: 1, ..self.weight("the pod's CPU request", pod_cpu_milli) },
            Setting {
                above: 1,
                what: "the limit of processes",
                controller: "pids",
                file: "pids.max",
                value: processes_of_a_pod().to_string(),
            },
        ]
    }

    fn weight(&self, what: &'static str, milli: u64) -> Setting {
        let shares = cpu_shares(milli);
        let (file, value) = match self {
            // The kubelet's formula from shares to weight.
            Self::Unified(_) => ("cpu.weight", 1 + (shares - 2) * 9999 / 262_142),
            Self::Split(_) => ("cpu.shares", shares),
        };
        Setting { above: 0, what, controller: "cpu", file, value: value.to_string() }
    }

    fn settings(&self, resources: &Resources) -> Vec<Setting> {
        let unified = matches!(self, Self::Unified(_));
        // One who asks for nothing has next to nothing under contention, and not the kernel's default: a whole CPU.
        let mut settings = vec![self.weight("the CPU request", resources.cpu_request_milli)];
        let mut set = |what, controller, file, value: String| {
            settings.push(Setting { above: 0, what, controller, file, value });
        };
        if let Some(limit) = resources.cpu_limit_milli {
            let quota = (limit * PERIOD_US / 1000).max(1000);
            if unified {
                set("the CPU limit", "cpu", "cpu.max", format!("{quota} {PERIOD_US}"));
            } else {
                set("the CPU limit", "cpu", "cpu.cfs_period_us", PERIOD_US.to_string());
                set("the CPU limit", "cpu", "cpu.cfs_quota_us", quota.to_string());
            }
        }
        if let Some(limit) = resources.memory_limit_bytes {
            if unified {
                set("the memory limit", "memory", "memory.max", limit.to_string());
                set(SWAP, "memory", "memory.swap.max", "0".into());
                // A container ends as a whole, and not with some of its processes missing.
                set("the memory limit", "memory", "memory.oom.group", "1".into());
            } else {
                set("the memory limit", "memory", "memory.limit_in_bytes", limit.to_string());
                // Counts both; it cannot be under the other one, which is set first.
                set(SWAP, "memory", "memory.memsw.limit_in_bytes", limit.to_string());
            }
        }
        settings
    }

    /// Puts the calling process into the groups.
    pub fn join(&self) -> io::Result<()> {
        self.take_in(0)
    }

    /// Puts a process into the groups: that of this number, as the caller sees it.
    pub fn take_in(&self, process: u32) -> io::Result<()> {
        let process = process.to_string();
        self.folders()
            .into_iter()
            .try_for_each(|folder| fs::write(folder.join("cgroup.procs"), &process))
    }

    /// The numbers of all processes in the groups.
    pub fn processes(&self) -> Vec<u32> {
        let Some(folder) = self.folders().first().copied() else { return Vec::new() };
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// SIGKILL to all processes in the groups. They are gone soon after, unless they hang in
    /// the kernel.
    pub fn kill(&self) {
        match self {
            Self::Unified(path) if fs::write(path.join("cgroup.kill"), "1").is_ok() => {}
            _ => {
                // Frozen, so that none can start another while they are counted.
                let freezer = self.folder("freezer").map(|f| f.join("freezer.state"));
                // Without it some may get away for now: who kills looks again, and thaws again.
                if let Some(state) = &freezer {
                    let _ = fs::write(state, "FROZEN");
                }
                for pid in self.processes() {
                    let pid = nix::unistd::Pid::from_raw(pid as i32);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                }
                if let Some(state) = &freezer {
                    let _ = fs::write(state, "THAWED");
                }
            }
        }
    }

    /// Removes the groups, and those above that hold no other.
    pub fn remove(&self) {
        for folder in self.folders() {
            let mut folder = folder.as_path();
            // Up to and with our own folder, as long as they are empty.
            while fs::remove_dir(folder).is_ok() && !folder.ends_with("impresario") {
                let Some(parent) = folder.parent() else { break };
                folder = parent;
            }
        }
    }

    /// Whether the kernel killed one of its processes for want of memory.
    pub fn out_of_memory(&self) -> bool {
        let Some(folder) = self.folder("memory") else { return false };
        let file = match self {
            Self::Unified(_) => "memory.events",
            Self::Split(_) => "memory.oom_control",
        };
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        value_of(&text, "oom_kill").is_some_and(|count| count > 0)
    }

    /// Whether the kernel counts here what its processes use.
    pub fn counts(&self) -> bool {
        let has = |controller: &str, file: &str| {
            self.folder(controller).is_some_and(|folder| folder.join(file).exists())
        };
        match self {
            Self::Unified(_) => has("cpu", "cpu.stat") && has("memory", "memory.current"),
            Self::Split(_) => {
                has("cpuacct", "cpuacct.usage") && has("memory", "memory.usage_in_bytes")
            }
        }
    }

    /// What its processes used and use.
    pub fn stats(&self) -> Option<ContainerStats> {
        let read = |controller: &str, file: &str| {
            fs::read_to_string(self.folder(controller)?.join(file)).ok()
        };
        let (cpu, used, inactive) = match self {
            Self::Unified(_) => (
                Duration::from_micros(value_of(&read("cpu", "cpu.stat")?, "usage_usec")?),
                read("memory", "memory.current"),
                read("memory", "memory.stat").and_then(|t| value_of(&t, "inactive_file")),
            ),
            Self::Split(_) => (
                Duration::from_nanos(read("cpuacct", "cpuacct.usage")?.trim().parse().ok()?),
                read("memory", "memory.usage_in_bytes"),
                read("memory", "memory.stat").and_then(|t| value_of(&t, "total_inactive_file")),
            ),
        };
        let used: u64 = used?.trim().parse().ok()?;
        Some(ContainerStats {
            cpu,
            memory_bytes: used.saturating_sub(inactive.unwrap_or(0)),
            processes: self.processes().len() as u64,
        })
    }
}

/// The number behind a key in the kernel's `key value` files.
pub(crate) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(' ')?;
        (found == key).then(|| value.trim().parse().ok())?
    })
}

/// Hands controllers down to `path`; each that is refused is simply absent there.
fn enable_controllers(path: &Path) {
    let above: Vec<_> = path.ancestors().skip(1).take_while(|a| a.starts_with(ROOT)).collect();
    for folder in above.into_iter().rev() {
        let _ = fs::create_dir_all(folder);
        for controller in ["cpu", "memory", "pids"] {
            let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_words(settings: Vec<Setting>) -> Vec<String> {
        let in_words = |s: Setting| format!("{}{}={}", "../".repeat(s.above), s.file, s.value);
        settings.into_iter().map(in_words).collect()
    }

    #[test]
    fn requests_and_limits_become_the_settings_of_either_version() {
        let resources = Resources {
            cpu_request_milli: 500,
            cpu_limit_milli: Some(1500),
            memory_limit_bytes: Some(1 << 20),
            ..Resources::default()
        };
        let unified = Cgroup::Unified("/x".into());
        let expected = [
            "cpu.weight=20",
            "cpu.max=150000 100000",
            "memory.max=1048576",
            "memory.swap.max=0",
            "memory.oom.group=1",
        ];
        assert_eq!(in_words(unified.settings(&resources)), expected);
        let split = Cgroup::Split(vec![]);
        let expected = [
            "cpu.shares=512",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=150000",
            "memory.limit_in_bytes=1048576",
            "memory.memsw.limit_in_bytes=1048576",
        ];
        assert_eq!(in_words(split.settings(&resources)), expected);
        assert_eq!(in_words(split.settings(&Resources::default())), ["cpu.shares=2"]);
        assert_eq!(in_words(unified.settings(&Resources::default())), ["cpu.weight=1"]);
    }

    #[test]
    fn a_pod_weighs_what_its_containers_asked_for_together_and_has_no_more_than_half_of_all_processes()
     {
        let words = in_words(Cgroup::Split(vec![]).settings_above(2500));
        assert!(words[0].starts_with("../../../cpu.shares="), "{words:?}");
        assert_eq!(words[1], "../cpu.shares=2560");
        let most: u64 = words[2].strip_prefix("../pids.max=").unwrap().parse().unwrap();
        assert!(most >= 1024, "{most}");
    }
}
