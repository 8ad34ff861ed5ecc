//! Covers what is made later in the containers that run: for each a small process, which goes where the container is.

use crate::process::{identity::ProcessKey, record};
use crate::program::Program;
use impresario_ambient::clock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    thread,
    time::Duration,
};

/// How long it may take to cover something in one container.
const COVER_LIMIT: Duration = Duration::from_secs(10);
/// How long one that was killed may take to go: in a file system that does not answer it stays.
const KILL_LIMIT: Duration = Duration::from_secs(1);
/// In how many containers at once.
const SIDE_BY_SIDE: usize = 16;

/// A container that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    /// What it is called when it is told of.
    pub name: String,
    /// Its first process.
    pub process: ProcessKey,
    /// The folder of its pod, and those of its volumes that outlive the pod: what of these is mounted in it is its own.
    pub own: Vec<PathBuf>,
}

impl Target {
    /// A container of the `process` driver by its folder; none before it is born.
    pub fn in_folder(folder: &Path) -> io::Result<Option<Self>> {
        let born: Option<record::Born> = record::read(folder, "born.json")?;
        let Some(born) = born else { return Ok(None) };
        // Without it what is the container's could be taken from it: it is an error where it cannot be read.
        let order: Option<record::Order> = record::read(folder, "taken.json")?;
        let own = match order {
            Some(order) => order.own(folder),
            None => record::pod_folder(folder).map(Path::to_owned).into_iter().collect(),
        };
        Ok(Some(Self { name: folder.display().to_string(), process: born.process, own }))
    }
}

/// What the process is told that covers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub target: Target,
    pub paths: Vec<PathBuf>,
}

/// The containers of a node that have begun and not ended.
pub(crate) fn running_below(data: &Path) -> Vec<Target> {
    let below = |folders: Vec<PathBuf>| {
        let mut found = Vec::new();
        for folder in folders {
            let entries = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            match entries {
                Ok(entries) => found.extend(entries.into_iter().map(|entry| entry.path())),
                // Of a node that has no pods, or a pod that has just gone.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) => {}
                Err(error) => {
                    tracing::warn!(?folder, %error, "containers in it may see what is made now");
                }
            }
        }
        found
    };
    let pods = below(vec![data.join("pods")]);
    let containers = below(pods.into_iter().map(|pod| pod.join("containers")).collect());
    let attempts = below(containers);
    let runs = |folder: &PathBuf| match Target::in_folder(folder) {
        Ok(target) => target.filter(|_| !folder.join("exit.json").exists()),
        Err(error) => {
            tracing::warn!(?folder, %error, "this container may see what is made now");
            None
        }
    };
    attempts.iter().filter_map(runs).collect()
}

/// Covers paths in all of these containers. Returns those in which that failed, by name. Blocks: for threads that may.
pub(super) fn cover_all(
    shim: &Program,
    targets: &[Target],
    paths: &[PathBuf],
) -> Vec<(String, io::Error)> {
    let (next, failed) = (Mutex::new(targets.iter()), Mutex::new(Vec::new()));
    let take = || next.lock().next();
    let work = || {
        while let Some(target) = take() {
            if let Err(error) = cover(shim, target, paths) {
                failed.lock().push((target.name.clone(), error));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(targets.len()) {
            scope.spawn(work);
        }
    });
    failed.into_inner()
}

/// Covers paths in a container that runs. Blocks: for threads that may.
pub(crate) fn cover(shim: &Program, target: &Target, paths: &[PathBuf]) -> io::Result<()> {
    let mut command = shim.command("hide")?;
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let asked = serde_json::to_vec(&Asked { target: target.clone(), paths: paths.to_vec() })?;
    let mut child = command.spawn()?;
    // One that ends before it has read says why itself.
    let written = child.stdin.take().map(|mut input| input.write_all(&asked));
    let Some(status) = ended(&mut child, COVER_LIMIT)? else {
        child.kill()?;
        let stays = ended(&mut child, KILL_LIMIT)?.is_none();
        let what = if stays { ", and the process that tries stays" } else { "" };
        let what = format!("not done within {COVER_LIMIT:?}{what}");
        return Err(io::Error::new(io::ErrorKind::TimedOut, what));
    };
    if status.success() {
        return written.unwrap_or(Ok(()));
    }
    let mut said = String::new();
    child.stderr.take().map(|err| err.take(4096).read_to_string(&mut said)).transpose()?;
    Err(io::Error::other(said.trim().to_owned()))
}

/// None if it runs still when the time is over.
fn ended(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let until = clock::now() + limit;
    loop {
        match child.try_wait()? {
            None if clock::now() < until => thread::sleep(Duration::from_millis(2)),
            ended => return Ok(ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_by_right_the_folder_of_its_pod_and_those_of_its_claims() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("pods/uid/containers/a/0");
        fs::create_dir_all(&folder).unwrap();
        assert!(Target::in_folder(&folder).unwrap().is_none(), "it is not born");
        let process = ProcessKey::of(std::process::id()).unwrap();
        let born = serde_json::json!({"process": process, "started_at": "2026-03-01T00:00:00Z",
            "warnings": [], "cgroup": null});
        record::write(&folder, "born.json", &born).unwrap();
        let mount = |source: &str| {
            serde_json::json!({"volume": "v", "source": data.path().join(source), "sub_path": null,
                "target": "/v", "read_only": false})
        };
        let none = || serde_json::json!([]);
        let order = serde_json::json!({"folder": folder, "cgroup": null, "hidden": [], "spec": {
            "pod": {"uid": "uid", "namespace": "ns", "name": "p", "hostname": "p", "address": null,
                "host_network": false},
            "name": "a", "attempt": 0, "image": "", "pull": crate::container::PullPolicy::Never,
            "command": none(), "args": none(), "working_dir": null, "env": none(), "gpus": none(),
            "mounts": [mount("volumes/pvc-1"), mount("keys"), mount("volumes/pvc-2/in")],
            "resources": crate::container::Resources::default(),
            "user": crate::container::User::default(),
            "log": crate::container::LogLimit::default()}});
        record::write(&folder, "taken.json", &order).unwrap();
        let own = Target::in_folder(&folder).unwrap().unwrap().own;
        assert_eq!(own, [data.path().join("pods/uid"), data.path().join("volumes/pvc-1")]);
        fs::write(folder.join("taken.json"), "[").unwrap();
        assert!(Target::in_folder(&folder).is_err(), "what is its own is not known");
    }

    #[test]
    fn containers_are_covered_side_by_side_and_each_that_fails_is_named() {
        let folder = tempfile::tempdir().unwrap();
        // Each waits until as many are there as may be at once: one after the other they would wait for ever.
        let script = format!(
            "cat >/dev/null; touch {0}/$$; i=0; while [ $(ls {0} | wc -l) -lt {1} ]; do \
             i=$((i+1)); [ $i -lt 100 ] || exit 1; sleep 0.1; done; echo no >&2; exit 3",
            folder.path().display(),
            SIDE_BY_SIDE
        );
        let shim = Program::new(["/bin/sh", "-c", &format!("PATH=/usr/bin:/bin; {script}")]);
        let process = ProcessKey::of(std::process::id()).unwrap();
        let target = |number: usize| Target {
            name: number.to_string(),
            process: process.clone(),
            own: Vec::new(),
        };
        let targets: Vec<_> = (0..SIDE_BY_SIDE).map(target).collect();
        let failed = cover_all(&shim, &targets, &[]);
        assert_eq!(failed.len(), targets.len(), "{failed:?}");
        assert!(failed.iter().all(|(_, error)| error.to_string() == "no"), "{failed:?}");
    }
}
