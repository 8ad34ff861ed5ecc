//! Starts whose answer was lost.

use super::source::Pinned;
use nix::fcntl::Flock;
use parking_lot::Mutex;
use std::{collections::HashMap, fmt, fs::File, sync::Arc};

/// What a container needs while nobody knows whether it runs: the sources of its mounts, and the locks of its GPUs.
#[derive(Default)]
pub(super) struct Begun {
    #[expect(dead_code, reason = "held, not read: what is mounted goes with it")]
    pub(super) sources: Pinned,
    pub(super) gpus: Vec<Flock<File>>,
}

/// Those starts whose outcome is not known, by the container's name.
#[derive(Clone, Default)]
pub(super) struct Unsure(Arc<Mutex<HashMap<String, Begun>>>);

impl fmt::Debug for Unsure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.lock().keys()).finish()
    }
}

impl Unsure {
    pub(super) fn hold(&self, name: &str, begun: Begun) {
        self.0.lock().insert(name.to_owned(), begun);
    }

    pub(super) fn known(&self, name: &str) -> Begun {
        self.0.lock().remove(name).unwrap_or_default()
    }

    /// Those whose name begins like this.
    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        self.0.lock().keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// No container is left whose name begins like this.
    pub(super) fn gone(&self, prefix: &str) {
        let gone: Vec<_> = self.0.lock().extract_if(|name, _| name.starts_with(prefix)).collect();
        drop(gone); // without the lock: it takes mounts away
    }
}
