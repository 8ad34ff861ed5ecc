//! What containers use: by their control groups, or by their sessions where they have none.
//!
//! A control group counts what its processes used, those that have ended too. Without one the sum over the processes of a
//! container's session is taken, each with its children that have ended and were waited for: the time of a process that
//! ended goes to who waited for it. Of a process that leaves the session, and of one whose parent ended first and that
//! then ended itself, the kernel tells nobody who it belonged to; it is not counted. So the sum may fall.

use super::record::{self, Born};
use super::{Inner, cgroup::Cgroup, identity, names};
use crate::container::{ContainerId, ContainerStats, DriverError, Used};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

impl Inner {
    pub(super) fn stats(&self, id: &ContainerId) -> Result<ContainerStats, DriverError> {
        let folder = self.folder(id)?;
        let read = DriverError::io(format!("reading {}", folder.display()));
        let born: Option<Born> = record::read(&folder, "born.json").map_err(read)?;
        let Some(born) = born else { return Ok(ContainerStats::default()) };
        if let Some(stats) = born.cgroup.as_ref().and_then(Cgroup::stats) {
            return Ok(stats);
        }
        Ok(if born.process.is_running() {
            sessions().remove(&born.process.pid).unwrap_or_default()
        } else {
            ContainerStats::default()
        })
    }

    /// What each container that runs uses: the processes of the machine are looked through once for all of them, and not
    /// at all where all have control groups.
    pub(super) fn usage(&self) -> Result<Vec<Used>, DriverError> {
        let mut used = Vec::new();
        let mut all_sessions = None;
        for pod_uid in names(&self.pods())? {
            let containers = self.pods().join(&pod_uid).join("containers");
            for container in names(&containers)? {
                let attempts = names(&containers.join(&container))?;
                // Of one name the last runs, if any does.
                let last = attempts.iter().filter_map(|attempt| attempt.parse::<u32>().ok()).max();
                let Some(attempt) = last else { continue };
                let folder = containers.join(&container).join(attempt.to_string());
                let Some(born) = running(&folder) else { continue };
                // Two that count otherwise are never mixed: the difference would be told as used.
                let stats = match born.cgroup.as_ref().filter(|group| group.counts()) {
                    Some(group) => group.stats(),
                    None => {
                        all_sessions.get_or_insert_with(sessions).get(&born.process.pid).copied()
                    }
                };
                let Some(stats) = stats else { continue };
                let id = ContainerId(format!("{pod_uid}/{container}/{attempt}"));
                used.push(Used { id, pod_uid: pod_uid.clone(), container, stats });
            }
        }
        Ok(used)
    }
}

/// The record of a container, if it has begun and its end is not written.
fn running(folder: &Path) -> Option<Born> {
    if folder.join("exit.json").exists() {
        return None;
    }
    let born: Born = record::read(folder, "born.json").ok().flatten()?;
    born.process.is_running().then_some(born)
}

/// What the processes of each session use.
fn sessions() -> HashMap<u32, ContainerStats> {
    const TICKS_PER_SECOND: u64 = 100; // USER_HZ, the same on every Linux that we run on
    let page = rustix::param::page_size() as u64;
    let mut sessions: HashMap<u32, ContainerStats> = HashMap::new();
    for found in identity::all().into_iter().filter_map(identity::stat) {
        let sum = sessions.entry(found.session).or_default();
        let ticks = found.cpu_ticks + found.children_ticks;
        sum.cpu += Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND);
        sum.memory_bytes += found.resident_pages * page;
        sum.processes += 1;
    }
    sessions
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_a_child_used_that_has_ended_counts_for_its_session() {
        // The shell waits for a child that computes, and says so; itself it then waits for a line.
        let work = "(i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done); echo done; read _";
        let mut shell = Command::new("setsid")
            .args(["sh", "-c", work])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = shell.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        assert_eq!(line, "done\n");
        let found = identity::stat(shell.id()).unwrap();
        let session = sessions()[&found.session];
        let is_own = found.session == shell.id();
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(is_own, "a session of its own");
        assert!(found.children_ticks > 0, "the shell has waited for its child");
        assert!(session.cpu >= Duration::from_millis(found.children_ticks * 10), "{session:?}");
        assert!(session.memory_bytes > 0 && session.processes == 1, "{session:?}");
    }
}
