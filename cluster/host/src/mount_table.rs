//! The table of mounts, in which the kernel tells what is mounted where.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// One line of the table of mounts (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// The number of the file system.
    pub device: String,
    /// Which folder of the file system.
    pub root: PathBuf,
    /// Where it is seen.
    pub point: PathBuf,
    /// The options of the mount, as in `rw,nosuid`.
    pub options: String,
}

/// Where something is mounted, in this process's view.
pub(crate) fn mount_points() -> io::Result<Vec<PathBuf>> {
    Ok(mount_table()?.into_iter().map(|mounted| mounted.point).collect())
}

/// The same, with all that is told of each: no file system is asked, so that none that does not
/// answer is waited for.
pub(crate) fn mount_table() -> io::Result<Vec<Mounted>> {
    mount_table_of("self")
}

/// The same in the view of another process, by its number.
pub(crate) fn mount_table_of(process: &str) -> io::Result<Vec<Mounted>> {
    let table = fs::read_to_string(format!("/proc/{process}/mountinfo"))?;
    let mounts = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        Some(Mounted {
            device: fields.next()?.to_owned(),
            root: unescape(fields.next()?).into(),
            point: unescape(fields.next()?).into(),
            options: fields.next()?.to_owned(),
        })
    });
    Ok(mounts.collect())
}

/// The kernel writes spaces and the like in paths as a backslash and three octal digits.
fn unescape(text: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// The mount that a path without links lies in.
pub(crate) fn mount_of<'a>(path: &Path, table: &'a [Mounted]) -> Option<&'a Mounted> {
    let above = table.iter().filter(|mounted| path.starts_with(&mounted.point));
    // Of several at one point the last covers the others.
    above.max_by_key(|mounted| mounted.point.components().count())
}
