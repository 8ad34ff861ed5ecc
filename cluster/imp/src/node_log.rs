//! The log of a process that runs nodes, where `imp` started it: `log` in its folder, and of bounded size.
//!
//! Whoever starts the process has its standard output and error appended to that file and goes. What grows is therefore
//! looked after by the process itself: a file that is full is put aside as `log.1`, in place of the one before, and
//! standard output and error go on in a new one. Where standard error is anything else (a terminal, a journal, a
//! file of somebody else), it stays what it is.

use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file of this size is full: there are two of them at most, and a line.
const FULL: u64 = 16 << 20;

/// A log that does not outgrow its bound.
#[derive(Debug)]
pub struct NodeLog {
    path: PathBuf,
    full: u64,
    file: Mutex<File>,
    /// What else goes to the new file when one is begun.
    follow: fn(&File) -> io::Result<()>,
}

impl NodeLog {
    /// The log in this file, if that is where standard error goes.
    #[must_use]
    pub fn of(path: PathBuf) -> Option<Self> {
        let file = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
        Self::is_at(&file, &path).then(|| Self {
            path,
            full: FULL,
            file: Mutex::new(file),
            follow: standard_streams,
        })
    }

    fn is_at(file: &File, path: &Path) -> bool {
        match (file.metadata(), fs::metadata(path)) {
            (Ok(file), Ok(path)) => {
                file.is_file() && (file.dev(), file.ino()) == (path.dev(), path.ino())
            }
            _ => false,
        }
    }

    /// Puts the file that is full aside and begins the next one.
    fn begin_anew(&self) -> io::Result<File> {
        fs::rename(&self.path, self.path.with_extension("1"))?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        (self.follow)(&file)?;
        Ok(file)
    }
}

/// What is printed past the log, such as the words of a panic, goes where the log goes.
fn standard_streams(file: &File) -> io::Result<()> {
    nix::unistd::dup2_stdout(file)?;
    nix::unistd::dup2_stderr(file)?;
    Ok(())
}

impl Write for &NodeLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut file = self.file.lock();
        if file.metadata()?.len() >= self.full {
            match self.begin_anew() {
                Ok(new) => *file = new,
                // On a full disk, say. Older lines are worth less than the disk.
                Err(_) => file.set_len(0)?,
            }
        }
        file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nothing is held back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"a line of forty bytes, its end included\n";

    fn log(folder: &Path) -> NodeLog {
        let path = folder.join("log");
        let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        NodeLog { path, full: 400, file: Mutex::new(file), follow: |_| Ok(()) }
    }

    fn size(path: &Path) -> u64 {
        fs::metadata(path).map_or(0, |found| found.len())
    }

    #[test]
    fn a_log_that_is_full_is_put_aside_and_never_grows_beyond_two_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path());
        let (now, before) = (folder.path().join("log"), folder.path().join("log.1"));
        for _ in 0..10 {
            (&log).write_all(LINE).unwrap();
        }
        assert_eq!((size(&now), before.exists()), (400, false));
        for number in 0..1_000 {
            (&log).write_all(LINE).unwrap();
            assert!(size(&now) <= 400, "{number}");
            assert_eq!(size(&before), 400, "{number}");
        }
        (&log).write_all(b"the last line\n").unwrap();
        assert!(fs::read_to_string(&now).unwrap().ends_with("the last line\n"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_log_that_cannot_be_put_aside_is_emptied_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path());
        fs::create_dir_all(folder.path().join("log.1/in-the-way")).unwrap();
        for _ in 0..100 {
            (&log).write_all(LINE).unwrap();
            assert!((40..=400).contains(&size(&log.path)));
        }
    }

    #[test]
    fn what_is_no_log_of_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (folder.path().join("log"), folder.path().join("other"));
        fs::write(&other, "").unwrap();
        let file = File::create(&ours).unwrap();
        assert!(NodeLog::is_at(&file, &ours));
        assert!(!NodeLog::is_at(&file, &other));
        assert!(!NodeLog::is_at(&file, &folder.path().join("none")));
        let null = File::open("/dev/null").unwrap();
        assert!(!NodeLog::is_at(&null, Path::new("/dev/null")), "it has no size");
    }
}
