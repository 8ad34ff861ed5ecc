//! What is left of a container whose keeper was killed.

use super::identity::{self, ProcessKey};
use super::record::{self, Born};
use crate::container::Exit;
use jiff::Timestamp;
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

/// Ends what a keeper left that was killed itself.
pub(super) fn end_orphans(folder: &Path) {
    let Ok(Some(born)) = record::read::<Born>(folder, "born.json") else { return };
    if !born.process.is_of_this_boot() {
        // The machine was restarted: nothing of it is left, and its numbers are strangers'.
        if let Some(cgroup) = &born.cgroup {
            cgroup.remove();
        }
        return;
    }
    // It may be gone already, which is what is wanted.
    let _ = born.process.signal(Signal::KILL);
    let leader = born.process.pid;
    let reused = identity::stat(leader).is_some_and(|s| s.start_ticks != born.process.start_ticks);
    if !reused {
        // While a process of the session lives, its number is given to no other session.
        for pid in identity::all() {
            if identity::stat(pid).is_some_and(|s| s.session == leader) {
                let key = ProcessKey::of(pid);
                let _ = key.map(|key| key.signal(Signal::KILL));
            }
        }
    }
    if let Some(cgroup) = &born.cgroup {
        cgroup.kill_all(Duration::from_secs(2));
        cgroup.remove();
    }
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
        end_orphans(folder.path());
        let ended = stranger.try_wait().unwrap();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(ended.is_none(), "{ended:?}");
    }
}
