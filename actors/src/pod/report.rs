//! Where the writing of a pod's status stands.

use actix::SpawnHandle;
use impresario_host::ContainerId;
use std::collections::BTreeMap;

/// What is being written, and what is to be done after it.
#[derive(Default)]
pub(super) struct Report {
    pub(super) is_writing: bool,
    pub(super) is_due: bool,
    pub(super) delayed: Option<SpawnHandle>,
    pub(super) has_written: bool,
    /// Earlier lives of containers that may go once the status names a later one.
    pub(super) outdated: BTreeMap<String, ContainerId>,
}
