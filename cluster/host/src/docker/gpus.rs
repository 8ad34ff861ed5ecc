//! A GPU is in at most one container on a machine, by the same lock as that of the `process` driver's keepers. The
//! engine knows none: the node holds the locks of its containers, and takes them again when it finds these running.

use super::translate::GPUS;
use crate::container::{ContainerId, DriverError, StartError};
use crate::process::record::Failed;
use crate::shim::gpu_lock;
use impresario_ambient::tasks;
use nix::fcntl::Flock;
use parking_lot::Mutex;
use std::{collections::HashMap, fs::File, io, sync::Arc, time::Duration};

/// The locks of GPUs, by container.
#[derive(Debug, Clone, Default)]
pub(super) struct Gpus(Arc<Mutex<HashMap<String, Vec<Flock<File>>>>>);

impl Gpus {
    /// Takes GPUs for a container that is to be made; waits a moment for the one before it.
    pub(super) async fn take(&self, uuids: &[String]) -> Result<Vec<Flock<File>>, StartError> {
        if uuids.is_empty() {
            return Ok(Vec::new());
        }
        let uuids = uuids.to_vec();
        let taken = tasks::spawn_blocking(move || gpu_lock::take(&uuids)).await;
        let lost = |error| {
            let what = "locking GPUs".to_owned();
            StartError::from(DriverError::Io { what, cause: io::Error::other(error) })
        };
        taken.map_err(lost)?.map_err(StartError::from)
    }

    /// They are that container's until it is gone.
    pub(super) fn keep(&self, id: &str, locks: Vec<Flock<File>>) {
        if !locks.is_empty() {
            self.0.lock().insert(id.to_owned(), locks);
        }
    }

    /// Lets go of what a container had.
    pub(super) fn let_go(&self, id: &str) {
        self.0.lock().remove(id);
    }

    /// Takes what a container has that an earlier process of the node has started.
    pub(super) fn take_again(&self, id: &ContainerId, labels: &HashMap<String, String>) {
        let Some(uuids) = labels.get(GPUS) else { return };
        if self.0.lock().contains_key(&id.0) {
            return;
        }
        let uuids: Vec<String> = uuids.split(',').map(str::to_owned).collect();
        match gpu_lock::take_within(&uuids, Duration::ZERO) {
            Ok(locks) => self.keep(&id.0, locks),
            Err(Failed::System { what, cause }) => {
                tracing::warn!(container = %id, what, cause, "a running container shares its GPU");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gpu_is_its_container_s_until_that_is_gone_for_the_next_process_of_the_node_too() {
        let uuid = format!("GPU-of-a-test-{}", std::process::id());
        let uuids = [uuid.clone()];
        let is_taken = || gpu_lock::take_within(&uuids, Duration::ZERO).is_err();
        let (id, gpus) = (ContainerId("a".into()), Gpus::default());
        gpus.keep(&id.0, gpus.take(&uuids).await.unwrap());
        assert!(is_taken());
        drop(gpus);
        assert!(!is_taken());
        let next = Gpus::default();
        next.take_again(&id, &HashMap::from([(GPUS.to_owned(), uuid.clone())]));
        assert!(is_taken());
        next.let_go(&id.0);
        assert!(!is_taken());
        std::fs::remove_file(format!("/dev/shm/impresario-{uuid}")).unwrap();
    }
}
