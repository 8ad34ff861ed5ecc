//! What a container wants to be remembered by: its termination message.
//!
//! Each start gets a file of its own, mounted at `terminationMessagePath`. What is in it when the container ends is the
//! message; where that is nothing, the container failed and the pod says `FallbackToLogsOnError`, the end of its log is.
//! (Kubernetes, "Determine the Reason for Pod Failure": at most 4096 bytes of the file, 2048 bytes or 80 lines of the log.)

use super::PodActor;
use futures_util::StreamExt as _;
use impresario_host::{
    ContainerDriver, ContainerId, Exit, LogOptions,
    container::{Mount, is_path_component},
};
use impresario_runtime::tasks;
use k8s_openapi::api::core::v1;
use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

const FILE_LIMIT: u64 = 4096;
const LOG_LIMIT: usize = 2048;
const LOG_LINES: usize = 80;
/// How long the end of a log may take to be read.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// Where the file is seen when the pod does not say.
const SEEN_AT: &str = "/dev/termination-log";

fn file(pod_folder: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_folder.join("termination").join(format!("{container}.{attempt}"))
}

/// Makes the file for a start of a container, and says where it is seen.
pub(super) fn place(
    pod_folder: &Path,
    container: &v1::Container,
    attempt: u32,
) -> io::Result<Mount> {
    if !is_path_component(&container.name) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let source = file(pod_folder, &container.name, attempt);
    source.parent().map(fs::create_dir_all).transpose()?;
    fs::write(&source, "")?;
    // Whoever the container runs as writes to it.
    fs::set_permissions(&source, fs::Permissions::from_mode(0o666))?;
    let target = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    Ok(Mount {
        volume: "termination-log".to_owned(),
        source,
        sub_path: None,
        target: Path::new("/").join(target.unwrap_or(SEEN_AT)),
        read_only: false,
    })
}

/// Where the last words of one start of a container are.
pub(super) struct LastWords {
    driver: Arc<dyn ContainerDriver>,
    id: ContainerId,
    file: PathBuf,
    may_be_log: bool,
}

impl LastWords {
    /// The exit with the message, where there is any.
    pub(super) async fn added(self, mut exit: Exit) -> Exit {
        let path = self.file.clone();
        let read = tasks::spawn_blocking(move || end_of(&path, FILE_LIMIT)).await;
        let mut words = said(read.unwrap_or_else(|lost| Err(io::Error::other(lost))));
        if words.is_empty() && self.may_be_log && exit.code != 0 {
            words = timeout(READ_LIMIT, self.end_of_log()).await.unwrap_or_default();
        }
        if !words.is_empty() {
            exit.message = words;
        }
        exit
    }

    async fn end_of_log(&self) -> String {
        let options = LogOptions { tail: Some(LOG_LINES), ..LogOptions::default() };
        let Ok(mut lines) = self.driver.logs(&self.id, options).await else {
            return String::new();
        };
        let mut bytes = Vec::new();
        while let Some(Ok(line)) = lines.next().await {
            bytes.extend_from_slice(&line.bytes);
            if !line.partial {
                bytes.push(b'\n');
            }
            // Enough of the end is kept, however long the lines are.
            if bytes.len() > 16 * LOG_LIMIT {
                bytes.drain(..bytes.len() - LOG_LIMIT);
            }
        }
        bytes.drain(..bytes.len().saturating_sub(LOG_LIMIT));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// What is told of a message that was read.
fn said(read: io::Result<String>) -> String {
    match read {
        Ok(words) => words,
        // It went with its pod, or was never made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => format!("the termination message cannot be read: {error}"),
    }
}

fn end_of(path: &Path, limit: u64) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl PodActor {
    /// Where the last words of this start of the container are.
    pub(super) fn last_words(&self, name: &str, id: &ContainerId, attempt: u32) -> LastWords {
        self.last_words_of_any()(name, id, attempt)
    }

    /// The same for any container of the pod, wherever this actor is by then.
    pub(super) fn last_words_of_any(
        &self,
    ) -> impl Fn(&str, &ContainerId, u32) -> LastWords + use<> {
        let driver = self.kit.driver.clone();
        let folder = self.kit.pods_folder.join(&self.uid);
        let spec = self.object.spec.iter();
        let all = spec
            .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        let with_log: Vec<String> = all
            .filter(|container| {
                container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
            })
            .map(|container| container.name.clone())
            .collect();
        move |name, id, attempt| LastWords {
            driver: driver.clone(),
            id: id.clone(),
            file: file(&folder, name, attempt),
            may_be_log: with_log.iter().any(|one| one == name),
        }
    }

    /// The number of the start that runs.
    pub(super) fn current_attempt(&self, name: &str) -> u32 {
        self.life.container(name).map_or(0, |container| container.attempt.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_message_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let container = v1::Container { name: "a".into(), ..v1::Container::default() };
        let mount = place(folder.path(), &container, 3).unwrap();
        assert_eq!(mount.target, Path::new("/dev/termination-log"));
        assert_eq!(end_of(&mount.source, FILE_LIMIT).unwrap(), "");
        fs::write(&mount.source, format!("{}end", "x".repeat(10_000))).unwrap();
        let words = end_of(&mount.source, FILE_LIMIT).unwrap();
        assert!(words.len() == 4096 && words.ends_with("xend"));
    }

    #[test]
    fn a_message_that_cannot_be_read_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(said(end_of(&path, FILE_LIMIT)), "");
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(said(end_of(&path, FILE_LIMIT)).contains("cannot be read: "));
    }
}
