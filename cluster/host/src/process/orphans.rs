//! What is left of a container whose keeper was killed.

use super::cgroup::Cgroup;
use super::identity::{self, ProcessKey};
use super::record::{self, Born, Order};
use crate::container::Exit;
use jiff::Timestamp;
use rustix::process::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it is looked whether they are gone.
const AGAIN: Duration = Duration::from_millis(10);

/// Ends what there is of a container without its keeper, who was killed or hangs; whether nothing is left of it when
/// `limit` is over. What hangs in the kernel outlives SIGKILL. Blocks: for threads that may.
pub(super) fn end_orphans(folder: &Path, limit: Duration) -> bool {
    let left = Left::of(folder);
    let begin = Instant::now();
    while left.kill() {
        if begin.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(AGAIN);
    }
    if let Some(cgroup) = &left.cgroup {
        cgroup.remove();
    }
    true
}

/// By what the processes of a container are found.
struct Left {
    /// Its first one.
    process: Option<ProcessKey>,
    cgroup: Option<Cgroup>,
}

impl Left {
    /// From its birth, or, where that did not come to it, from what its keeper wrote down before it told its first process
    /// what to do.
    fn of(folder: &Path) -> Self {
        if let Ok(Some(Born { process, cgroup, .. })) = record::read(folder, "born.json") {
            return Self { process: Some(process), cgroup };
        }
        let process = record::read(folder, "first.json").unwrap_or_default();
        let order: Option<Order> = record::read(folder, "taken.json").unwrap_or_default();
        Self { process, cgroup: order.and_then(|order| order.cgroup) }
    }

    /// SIGKILL to all of them; whether there were any.
    fn kill(&self) -> bool {
        // After a restart of the machine nothing of it is left, and its numbers are strangers'.
        let first = self.process.as_ref().filter(|process| process.is_of_this_boot());
        let mut found = first.is_some_and(end);
        if let Some(first) = first {
            let leader = first.pid;
            let reused = identity::stat(leader).is_some_and(|s| s.start_ticks != first.start_ticks);
            // While a process of the session lives, its number is given to no other session.
            for pid in if reused { Vec::new() } else { identity::all() } {
                if identity::stat(pid).is_some_and(|s| s.session == leader) {
                    found |= ProcessKey::of(pid).is_some_and(|process| end(&process));
                }
            }
        }
        match &self.cgroup {
            Some(cgroup) if !cgroup.processes().is_empty() => {
                cgroup.kill();
                true
            }
            _ => found,
        }
    }
}

/// SIGKILL to a process; whether it was running.
fn end(process: &ProcessKey) -> bool {
    let is_running = process.is_running();
    if is_running {
        // It may be gone by now, which is what is wanted.
        let _ = process.signal(Signal::KILL);
    }
    is_running
}

/// The end of a container that nobody saw.
pub(super) fn lost(born: Option<&Born>) -> Exit {
    Exit {
        code: 137,
        signal: Some(9),
        started_at: born.map(|born| born.started_at),
        finished_at: Timestamp::now(),
        reason: "ContainerStatusUnknown".into(),
        message: "its keeper ended without saying how the container did: killed, or the machine \
                  was restarted"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn after_a_restart_of_the_machine_no_stranger_is_ended_for_having_the_number() {
        let folder = tempfile::tempdir().unwrap();
        let mut stranger = Command::new("setsid").args(["sleep", "600"]).spawn().unwrap();
        // `setsid` makes a session of itself before it becomes `sleep`.
        let pid = stranger.id();
        let begin = std::time::Instant::now();
        while identity::stat(pid).is_none_or(|s| s.session != pid) {
            assert!(begin.elapsed() < Duration::from_secs(30), "no session of its own");
            std::thread::yield_now();
        }
        // A process that ended, whose number a session has that is older than the machine's restart tells.
        let process = ProcessKey { boot: "before".into(), ..ProcessKey::of(pid).unwrap() };
        let born =
            Born { process, started_at: Timestamp::now(), warnings: Vec::new(), cgroup: None };
        record::write(folder.path(), "born.json", &born).unwrap();
        assert!(end_orphans(folder.path(), Duration::ZERO));
        let ended = stranger.try_wait().unwrap();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(ended.is_none(), "{ended:?}");
    }
}
