//! What a container uses: by its control group, or by its session where it has none.

use super::record::{self, Born};
use super::{Inner, cgroup::Cgroup, identity};
use crate::container::{ContainerId, ContainerStats, DriverError};
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
            session_stats(born.process.pid)
        } else {
            ContainerStats::default()
        })
    }
}

fn session_stats(session: u32) -> ContainerStats {
    const TICKS_PER_SECOND: u64 = 100; // USER_HZ, the same on every Linux that we run on
    let page = rustix::param::page_size() as u64;
    let of_session = identity::all().into_iter().filter_map(identity::stat);
    of_session.filter(|s| s.session == session).fold(ContainerStats::default(), |sum, s| {
        ContainerStats {
            cpu: sum.cpu + Duration::from_millis(s.cpu_ticks * 1000 / TICKS_PER_SECOND),
            memory_bytes: sum.memory_bytes + s.resident_pages * page,
            processes: sum.processes + 1,
        }
    })
}
