//! The end of a kind: what lists and follows its objects ends with it.

use impresario_api::catalog::{self, Observer};
use impresario_api::resource::Resource;
use impresario_api::status::Status;
use std::future::pending;
use std::sync::LazyLock;
use tokio::sync::watch;

/// Wakes who waits for a change of the kinds that this process serves.
struct Changes {
    generation: watch::Receiver<u64>,
    _observer: Observer,
}

static CHANGES: LazyLock<Changes> = LazyLock::new(|| {
    let (told, generation) = watch::channel(0);
    let observer = catalog::served().observe(move |_, generation| {
        told.send_replace(generation);
    });
    Changes { generation, _observer: observer }
});

/// Tells the generation of the kinds that this process serves, when they change.
pub fn kind_changes() -> watch::Receiver<u64> {
    CHANGES.generation.clone()
}

/// Refuses a kind that is not served any more.
pub fn still_served(resource: &Resource) -> Result<(), Status> {
    if catalog::served().is_served(resource) {
        return Ok(());
    }
    Err(Status::kind_removed(resource))
}

/// Waits until the kind is not served any more; for ever where it is one of the program.
pub async fn removed(resource: &Resource) -> Status {
    if resource.is_lasting() {
        return pending().await;
    }
    let mut changes = kind_changes();
    loop {
        // Noted before the look, so that no change falls between.
        changes.borrow_and_update();
        if let Err(status) = still_served(resource) {
            return status;
        }
        if changes.changed().await.is_err() {
            return pending().await;
        }
    }
}
