//! Hides from a container that runs already what was made after it: the folder of another node of this machine.
//!
//! Takes the paths as JSON from its standard input, and says on standard error what hinders it. A container without
//! a view of its own sees the machine, as the warning at its start says; nothing is covered there.

use super::{exec::enter, keep::close_inherited, mounts::Seen, view};
use crate::{
    private,
    process::record::{self, Born, Failed},
    volumes::mount_table_of,
};
use std::{
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

pub(super) fn run(folder: &Path) -> ExitCode {
    close_inherited();
    match hide(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn hide(folder: &Path) -> io::Result<()> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    let paths: Vec<PathBuf> = serde_json::from_slice(&bytes)?;
    let born: Born = record::read(folder, "born.json")?
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    // What it is on the machine, and where the container has its mounts: both are looked up from here.
    // One that is not there shows nothing; one that cannot be looked at may show everything.
    let identity = |path: &Path| match fs::metadata(path) {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    };
    let outside: Vec<_> = paths.iter().map(|path| identity(path)).collect::<io::Result<_>>()?;
    let table = mount_table_of(&born.process.pid.to_string())?;
    let (seen, _) = match enter(&born) {
        Ok(entered) => entered,
        // It has ended meanwhile, and sees nothing.
        Err(_) if !born.process.is_running() => return Ok(()),
        Err(Failed::System { what, cause }) => {
            return Err(io::Error::other(format!("{what}: {cause}")));
        }
        Err(other) => return Err(io::Error::other(format!("{other:?}"))),
    };
    if matches!(seen, Seen::AsOnHost) {
        return Ok(());
    }
    for (path, outside) in paths.iter().zip(outside) {
        // One that is covered is another one in there.
        let is_there = outside.is_some()
            && match identity(path) {
                Ok(inside) => inside == outside,
                // Not to be reached by that path in there.
                Err(_) => false,
            };
        if !is_there {
            continue;
        }
        for place in private::places(path, &table) {
            view::mask(&place)?;
        }
    }
    Ok(())
}
