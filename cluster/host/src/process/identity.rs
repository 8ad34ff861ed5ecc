//! Which process is meant: a pid together with the kernel's start time and the machine's boot.
//!
//! A pid alone is reused. A [`ProcessKey`] is compared before anything is done to a process, and
//! what is done goes through a pidfd, which never comes to mean another process.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::{fs, io, os::fd::OwnedFd, sync::OnceLock};

/// One process of one boot of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Its number.
    pub pid: u32,
    /// When the kernel started it, in clock ticks since boot.
    pub start_ticks: u64,
    /// The boot that those ticks count from.
    pub boot: String,
}

/// The fields of `/proc/PID/stat` that are used here.
pub(crate) struct Stat {
    pub state: char,
    pub parent: u32,
    pub session: u32,
    /// CPU time of its own, in clock ticks.
    pub cpu_ticks: u64,
    /// That of its children that have ended and were waited for, and of theirs.
    pub children_ticks: u64,
    pub start_ticks: u64,
    pub resident_pages: u64,
}

/// Reads the state of a process; `None` when there is none.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces and brackets: what follows the last one is plain.
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // proc_pid_stat(5) counts from one, and two fields are before the bracket.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: number(4)? as u32,
        session: number(6)? as u32,
        cpu_ticks: number(14)? + number(15)?,
        children_ticks: number(16).unwrap_or(0) + number(17).unwrap_or(0),
        start_ticks: number(22)?,
        resident_pages: number(24).unwrap_or(0),
    })
}

/// The numbers of all processes that there are.
pub(crate) fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The id of this boot of the machine.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    })
}

impl ProcessKey {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        let start_ticks = stat(pid)?.start_ticks;
        Some(Self { pid, start_ticks, boot: boot().to_owned() })
    }

    /// Whether it was seen since the machine was started last.
    pub fn is_of_this_boot(&self) -> bool {
        self.boot == boot()
    }

    /// Whether it still runs; one that ended and was not waited for yet does not.
    pub fn is_running(&self) -> bool {
        self.is_of_this_boot()
            && stat(self.pid)
                .is_some_and(|s| s.start_ticks == self.start_ticks && !matches!(s.state, 'Z' | 'X'))
    }

    /// A descriptor of exactly this process; `None` when it is gone.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Checked after opening: if the number was reused meanwhile, the start time differs.
            Ok(fd) => Ok(self.is_running().then_some(fd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a signal to exactly this process; `false` when it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(fd) = self.open()? else { return Ok(false) };
        match pidfd_send_signal(fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_another_process_has_now_is_not_taken_for_the_old_one() {
        let this = ProcessKey::of(std::process::id()).unwrap();
        assert!(this.is_running());
        let older = ProcessKey { start_ticks: this.start_ticks - 1, ..this.clone() };
        assert!(!older.is_running());
        assert!(older.open().unwrap().is_none());
        let other_boot = ProcessKey { boot: "another".into(), ..this };
        assert!(!other_boot.signal(Signal::KILL).unwrap());
    }
}
