//! Which container that runs can still reach what was covered in it: by a mount namespace that a process of it has made
//! itself, or by what a process holds open. Nothing can be taken from those: they are told of.

use super::{Hidden, Place, Target};
use crate::{
    mount_table::{mount_table, mount_table_of},
    process::identity,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// The containers that can see one of these paths, by name, and how.
pub(super) fn who_sees(targets: &[Target], paths: &[PathBuf]) -> io::Result<Vec<(String, String)>> {
    let table = mount_table()?;
    let mut hidden = Vec::new();
    for path in paths {
        hidden.extend(Hidden::find(path, &table)?);
    }
    let mut children = BTreeMap::<u32, Vec<u32>>::new();
    for pid in identity::all() {
        if let Some(stat) = identity::stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let machine = namespace("self");
    let of = |target: &Target| {
        // Without it nothing counts as the container's own: it is told of rather once too often.
        let own = target.own.iter().filter_map(|own| Hidden::find(own, &table).ok().flatten());
        let own: Vec<_> = own.collect();
        let mut views = BTreeSet::new();
        for pid in family(target.process.pid, &children) {
            let view = namespace(&pid.to_string());
            // One that sees the machine as it is was warned of when it was started.
            if view.is_none() || view == machine {
                continue;
            }
            // What cannot be looked at shows it, unless that is since its process has ended.
            let shows = || shows(pid, &hidden, &own).unwrap_or_else(|_| runs(pid));
            if views.insert(view) && shows() {
                return Some("has a mount namespace that shows them".to_owned());
            }
            if hidden.iter().any(|hidden| holds(pid, hidden)) {
                return Some("holds them open".to_owned());
            }
        }
        None
    };
    let there = targets.iter().filter(|target| target.process.is_running());
    Ok(there.filter_map(|target| Some((target.name.clone(), of(target)?))).collect())
}

/// A process and all that descend from it. Those whose parent has ended are children of the container's first one.
fn family(first: u32, children: &BTreeMap<u32, Vec<u32>>) -> Vec<u32> {
    let (mut found, mut seen) = (vec![first], BTreeSet::from([first]));
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let new = children.get(pid).into_iter().flatten().filter(|child| seen.insert(**child));
        let new: Vec<_> = new.copied().collect();
        found.extend(new);
        next += 1;
    }
    found
}

fn runs(pid: u32) -> bool {
    identity::stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// The mount namespace of a process, where we may know it.
fn namespace(process: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/mnt")).ok()
}

/// Whether a process can come to something by a path.
fn shows(pid: u32, hidden: &[Hidden], own: &[Hidden]) -> io::Result<bool> {
    let table = match mount_table_of(&pid.to_string()) {
        Ok(table) => table,
        // It has ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let root = Path::new("/proc").join(pid.to_string()).join("root");
    for hidden in hidden {
        for place in hidden.places(&table, own) {
            let is_seen = match place {
                Place::Whole(at) => {
                    hidden.is_at(&root.join(at.strip_prefix("/").unwrap_or(&at)))?
                }
                Place::Part(at) => root.join(at.strip_prefix("/").unwrap_or(&at)).try_exists()?,
            };
            if is_seen {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether a process has it as its working directory or root, or as an open file.
fn holds(pid: u32, hidden: &Hidden) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let links = ["cwd", "root"].map(|name| process.join(name)).into_iter();
    let mut links = links.chain(files.map(|file| file.path()));
    // By the name first: of a file system that does not answer nothing is asked.
    let is_named = |link: &PathBuf| {
        fs::read_link(link).is_ok_and(|at| at.file_name() == hidden.path.file_name())
    };
    links.any(|link| is_named(&link) && hidden.is_at(&link).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::identity::ProcessKey;
    use std::process::{Command, Stdio};

    /// A process with a mount namespace of its own that shows the machine as it was, and as it is.
    fn apart(script: &str) -> Option<std::process::Child> {
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c"]);
        let mut child = command.arg(script).stdout(Stdio::piped()).spawn().ok()?;
        let mut line = String::new();
        let mut said = std::io::BufReader::new(child.stdout.take()?);
        std::io::BufRead::read_line(&mut said, &mut line).ok()?;
        (line == "there\n").then_some(child)
    }

    #[test]
    fn who_holds_what_is_covered_or_has_a_namespace_of_its_own_that_shows_it_is_found() {
        if !nix::unistd::Uid::effective().is_root() {
            return crate::left_out::leave_out("it takes root");
        }
        let folder = tempfile::tempdir().unwrap();
        let (data, at) =
            (folder.path().join("data"), folder.path().join("data").display().to_string());
        fs::create_dir(&data).unwrap();
        let cover = format!("mount -t tmpfs none {at}");
        let scripts = [
            (format!("{cover}; echo there; exec sleep 600"), None),
            (format!("cd {at}; {cover}; echo there; exec sleep 600"), Some("holds")),
            (format!("exec 3<{at}; {cover}; echo there; exec sleep 600"), Some("holds")),
            // A child of the container's first process.
            (
                format!(
                    "unshare -m sleep 600 & ns() {{ readlink /proc/$1/ns/mnt; }}; while [ \"$(ns $!)\" = \"$(ns $$)\" ]; \
                     do sleep 0.01; done; {cover}; echo there; wait"
                ),
                Some("namespace"),
            ),
        ];
        for (script, expected) in scripts {
            let mut child = apart(&script).expect("unshare works");
            let process = ProcessKey::of(child.id()).unwrap();
            let target = Target { name: "a".into(), process, own: Vec::new() };
            let found = who_sees(&[target], std::slice::from_ref(&data)).unwrap();
            let family: Vec<_> = identity::all()
                .into_iter()
                .filter(|pid| identity::stat(*pid).is_some_and(|stat| stat.parent == child.id()))
                .collect();
            for pid in family {
                let process = ProcessKey::of(pid);
                process.map(|process| process.signal(rustix::process::Signal::KILL));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let why = found.first().map(|(_, why)| why.as_str());
            assert_eq!(why.is_some(), expected.is_some(), "{script}: {why:?}");
            assert!(
                why.unwrap_or_default().contains(expected.unwrap_or_default()),
                "{script}: {why:?}"
            );
        }
    }
}
