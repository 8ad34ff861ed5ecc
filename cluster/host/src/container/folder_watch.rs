//! Waiting for changes in folders, through one inotify instance for the whole process: a machine has few of them (128
//! by default), and a log may have hundreds of readers.
//!
//! Where even one cannot be had, or no further folder can be watched, a follower looks now and then instead.

use parking_lot::Mutex;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::{
    collections::HashMap,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::watch;

/// How often it is looked where nobody tells.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Many small changes become one look.
const GATHER: Duration = Duration::from_millis(2);

/// Wakes when something in a folder changes.
pub(super) struct FolderWatch(Option<Watched>);

struct Watched {
    shared: Arc<Shared>,
    number: i32,
    changes: watch::Receiver<()>,
}

struct Shared {
    inotify: OwnedFd,
    /// By the kernel's number of the watch.
    folders: Mutex<HashMap<i32, watch::Sender<()>>>,
}

impl FolderWatch {
    /// From now on no change is missed.
    pub(super) fn new(folder: &Path) -> Self {
        let Some(shared) = shared() else { return Self(None) };
        let mut folders = shared.folders.lock();
        let events = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        // The same folder has the same number, whoever else watches it.
        match inotify::add_watch(&shared.inotify, folder, events) {
            Ok(number) => {
                let sender = folders.entry(number).or_insert_with(|| watch::Sender::new(()));
                let changes = sender.subscribe();
                drop(folders);
                Self(Some(Watched { shared, number, changes }))
            }
            Err(error) => {
                tracing::debug!(folder = %folder.display(), %error, "looked at now and then");
                Self(None)
            }
        }
    }

    /// Resolves when something has changed since the last call.
    pub(super) async fn changed(&mut self) {
        let heard = match &mut self.0 {
            Some(watched) => watched.changes.changed().await.is_ok(),
            None => false,
        };
        tokio::time::sleep(if heard { GATHER } else { LOOK_INTERVAL }).await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut folders = self.shared.folders.lock();
        let is_last = folders.get(&self.number).is_some_and(|f| f.receiver_count() == 1);
        if is_last {
            folders.remove(&self.number);
            // Gone already where the folder is.
            let _ = inotify::remove_watch(&self.shared.inotify, self.number);
        }
    }
}

/// The process's one instance. Its reader is a thread, since it outlives whichever runtime was first to ask.
fn shared() -> Option<Arc<Shared>> {
    static SHARED: OnceLock<Option<Arc<Shared>>> = OnceLock::new();
    let made = SHARED.get_or_init(|| {
        let inotify = inotify::init(CreateFlags::CLOEXEC);
        let inotify = inotify.inspect_err(|error| {
            tracing::warn!(%error, "logs are looked at now and then: no inotify instance is left");
        });
        let shared = Arc::new(Shared { inotify: inotify.ok()?, folders: Mutex::default() });
        let reader = shared.clone();
        let thread = std::thread::Builder::new().name("inotify".into());
        let spawned = thread.spawn(move || read(&reader));
        spawned.is_ok().then_some(shared)
    });
    made.clone()
}

fn read(shared: &Shared) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&shared.inotify, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) => {
                let mut folders = shared.folders.lock();
                if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                    folders.values().for_each(|folder| folder.send_modify(|()| {}));
                } else if event.events().contains(ReadFlags::IGNORED) {
                    // The folder is gone: its followers look, and find that out.
                    folders.remove(&event.wd());
                } else if let Some(folder) = folders.get(&event.wd()) {
                    folder.send_modify(|()| {});
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::warn!(%error, "folders are looked at now and then");
                shared.folders.lock().clear();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    fn instances() -> usize {
        let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.filter(|target| target.to_string_lossy().contains("inotify")).count()
    }

    #[tokio::test]
    async fn five_hundred_followers_of_one_folder_share_an_instance_and_all_hear() {
        let folder = tempfile::tempdir().unwrap();
        let mut followers: Vec<_> = (0..500).map(|_| FolderWatch::new(folder.path())).collect();
        assert_eq!(instances(), 1);
        // Others go: that takes nothing from those that stay.
        followers.truncate(300);
        for round in 0..2 {
            std::fs::write(folder.path().join("log"), round.to_string()).unwrap();
            for follower in &mut followers {
                timeout(Duration::from_secs(30), follower.changed()).await.unwrap();
            }
        }
        let number = followers[0].0.as_ref().unwrap().number;
        let shared = followers[0].0.as_ref().unwrap().shared.clone();
        drop(followers);
        assert!(!shared.folders.lock().contains_key(&number));
    }
}
