//! Hides from a container that runs already what was made after it: the folder of another node of this machine.
//!
//! Takes the container and the paths as JSON from its standard input, and says on standard error what hinders it. A
//! container without a view of its own sees the machine, as the warning at its start says; nothing is covered there.

use super::{exec::enter, keep::close_inherited, mounts::Seen, view};
use crate::{
    mount_table::{mount_table, mount_table_of},
    private::{Asked, Hidden, Place},
    process::record::Failed,
};
use std::{
    io::{self, Read},
    path::Path,
    process::ExitCode,
};

pub(super) fn run() -> ExitCode {
    close_inherited();
    match hide() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn hide() -> io::Result<()> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    let Asked { target, paths } = serde_json::from_slice(&bytes)?;
    // What they are on the machine, and where the container has its mounts: both are looked up from here.
    let (machine, process) = (mount_table()?, &target.process);
    let found = |path: &Path| Hidden::find(path, &machine);
    let own = target.own.iter().filter_map(|path| found(path).transpose());
    let own: Vec<_> = own.collect::<io::Result<_>>()?;
    let hidden: Vec<_> = paths.iter().map(|path| found(path)).collect::<io::Result<_>>()?;
    let table = match mount_table_of(&process.pid.to_string()) {
        Ok(table) => table,
        // It has ended meanwhile, and sees nothing.
        Err(_) if !process.is_running() => return Ok(()),
        Err(error) => return Err(error),
    };
    let (seen, _) = match enter(process) {
        Ok(entered) => entered,
        Err(_) if !process.is_running() => return Ok(()),
        Err(Failed::System { what, cause }) => {
            return Err(io::Error::other(format!("{what}: {cause}")));
        }
        Err(other) => return Err(io::Error::other(format!("{other:?}"))),
    };
    if matches!(seen, Seen::AsOnHost) {
        return Ok(());
    }
    // One that cannot be covered keeps no other from it.
    let mut outcome = Ok(());
    for hidden in hidden.iter().flatten() {
        for place in hidden.places(&table, &own) {
            let covered = cover(hidden, &place);
            outcome = outcome.and(covered);
        }
    }
    outcome
}

fn cover(hidden: &Hidden, place: &Place) -> io::Result<()> {
    let at = match place {
        Place::Whole(at) | Place::Part(at) => at,
    };
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", at.display()));
    match place {
        // One that is covered is another one in there.
        Place::Whole(at) if !hidden.is_at(at).map_err(failed)? => return Ok(()),
        _ => view::mask(at).map_err(failed)?,
    }
    if matches!(place, Place::Whole(at) if hidden.is_at(at).map_err(failed)?) {
        let moved = "it was moved while it was being covered";
        return Err(io::Error::other(format!("{}: {moved}", at.display())));
    }
    Ok(())
}
