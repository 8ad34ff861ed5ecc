//! A pod's volumes.

use std::{fs, io, path::Path};

/// Takes away every mount at or below `folder`, the deepest first.
pub fn unmount_below(folder: &Path) -> io::Result<()> {
    let Ok(folder) = fs::canonicalize(folder) else { return Ok(()) };
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<_> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|point| Path::new(point).starts_with(&folder))
        .collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.len()));
    for point in points {
        nix::mount::umount2(point.as_str(), nix::mount::MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// The kernel writes spaces and the like in paths as three octal digits.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}
