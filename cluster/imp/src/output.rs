//! What commands print. A reader that has seen enough (`imp get pods | head -1`) closes the pipe:
//! that is its choice and no failure of ours.

use std::fmt::Arguments;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Prints a line on standard output.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::output::line(format_args!($($words)*))
    };
}
pub(crate) use say;

/// Prints a line. There is nobody left to tell when standard output is gone.
pub fn line(words: Arguments<'_>) {
    if let Err(error) = text(&format!("{words}\n")) {
        tracing::error!(%error, "standard output cannot be written");
    }
}

/// Prints a text as it is.
pub fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    part(&mut out, text.as_bytes()).map(drop)
}

/// A path as a word of a POSIX shell's command line, in quotes where it needs them (POSIX.1-2024, Shell
/// Command Language, 2.2 Quoting).
pub fn shell_word(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        return path;
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// Writes and flushes. False when the reader has gone.
pub fn part(out: &mut impl io::Write, bytes: &[u8]) -> io::Result<bool> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(ErrorKind);

    impl io::Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_path_is_one_word_of_a_command_line_whatever_is_in_it() {
        let word = |path: &str| shell_word(Path::new(path));
        assert_eq!(word("/var/lib/imp-1.0"), "/var/lib/imp-1.0");
        assert_eq!(word("/home/a b/$HOME"), "'/home/a b/$HOME'");
        assert_eq!(word("/it's"), r"'/it'\''s'");
        assert_eq!(word(""), "''");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is() {
        assert!(part(&mut Vec::new(), b"x").unwrap());
        assert!(!part(&mut Fails(ErrorKind::BrokenPipe), b"x").unwrap());
        assert!(part(&mut Fails(ErrorKind::StorageFull), b"x").is_err());
    }
}
