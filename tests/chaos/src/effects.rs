//! What containers did, by what they left behind: each writes a line when it begins, those of the job another one when
//! they have done their work, and each that is asked to end one when it does. Nobody's word is taken for it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The file for the lines of the pods that have this label `app`.
#[must_use]
pub fn file(folder: &Path, app: &str) -> PathBuf {
    folder.join(app)
}

/// How long a command that is asked to end goes on, in seconds: within the grace period of its pod.
const LINGERS_S: &str = "0.5";

/// A command that writes a line, does `work`, and writes another one if it comes so far. Asked to end, it takes its time
/// and writes when it ends. A short line that is appended is whole, however many write at once.
pub(crate) fn command(folder: &Path, app: &str, work: &str) -> [String; 3] {
    let file = file(folder, app).display().to_string();
    let line = |word: &str| format!("echo {word} \"$POD\" >> '{file}'");
    // The shell hears of signals between commands, and while it waits. (`$(` would begin a reference of Kubernetes.)
    let stop = format!("sleep {LINGERS_S}; echo stop \"$POD\" `date +%s` >> \"{file}\"; exit 143");
    let script = format!(
        "trap '{stop}' TERM; {}; {work} & wait $!; trap '' TERM; {}",
        line("begin"),
        line("end")
    );
    ["sh".into(), "-c".into(), script]
}

/// How often each pod, by uid, began and ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Lines at the beginning.
    pub begun: BTreeMap<String, u32>,
    /// Lines at the end.
    pub ended: BTreeMap<String, u32>,
    /// When it ended that was asked to, in seconds since 1970.
    pub stopped: BTreeMap<String, i64>,
}

impl Effects {
    /// What the pods of `app` left behind.
    pub fn read(folder: &Path, app: &str) -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string(file(folder, app))?))
    }

    fn parse(text: &str) -> Self {
        let mut effects = Self::default();
        for line in text.lines() {
            if let Some((uid, second)) =
                line.strip_prefix("stop ").and_then(|rest| rest.split_once(' '))
            {
                effects
                    .stopped
                    .extend(second.parse::<i64>().map(|second| (uid.to_owned(), second)));
                continue;
            }
            let (map, uid) = match line.split_once(' ') {
                Some(("begin", uid)) => (&mut effects.begun, uid),
                Some(("end", uid)) => (&mut effects.ended, uid),
                _ => continue,
            };
            *map.entry(uid.to_owned()).or_default() += 1;
        }
        effects
    }

    /// Adds what others left behind.
    pub(crate) fn add(&mut self, other: Self) {
        self.begun.extend(other.begun);
        self.ended.extend(other.ended);
        self.stopped.extend(other.stopped);
    }

    /// A pod that did something more than once.
    #[must_use]
    pub fn repeated(&self) -> Option<(&str, u32)> {
        let all = self.begun.iter().chain(&self.ended);
        all.map(|(uid, times)| (uid.as_str(), *times)).find(|(_, times)| *times > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_twice_is_seen_by_its_lines() {
        let effects = Effects::parse("begin a\nbegin b\nend a\n");
        assert_eq!((effects.begun.len(), effects.ended.len()), (2, 1));
        assert_eq!(effects.repeated(), None);
        assert_eq!(Effects::parse("begin a\nend a\nbegin a\n").repeated(), Some(("a", 2)));
        assert_eq!(Effects::parse("begin a\nend a\nend a\n").repeated(), Some(("a", 2)));
    }

    #[test]
    fn the_command_writes_the_lines_that_are_read() {
        let folder = std::env::temp_dir().join(format!("imp-effects-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [shell, option, script] = command(&folder, "job", "true");
        let run = std::process::Command::new(shell).args([option, script]).env("POD", "u").status();
        assert!(run.unwrap().success());
        let effects = Effects::read(&folder, "job").unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(effects, Effects::parse("begin u\nend u\n"));
    }

    #[test]
    fn a_command_that_is_asked_to_end_writes_when_it_does() {
        let folder = std::env::temp_dir().join(format!("imp-stopped-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [shell, option, script] = command(&folder, "app", "sleep 600");
        let mut child = std::process::Command::new(shell);
        let mut child = child.args([option, script]).env("POD", "u").spawn().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
        while !Effects::read(&folder, "app").is_ok_and(|effects| effects.begun.contains_key("u")) {
            assert!(std::time::Instant::now() < until, "it does not begin");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let asked = jiff::Timestamp::now().as_second();
        let kill = std::process::Command::new("kill").arg(child.id().to_string()).status();
        assert!(kill.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(143));
        let effects = Effects::read(&folder, "app").unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(effects.stopped["u"] >= asked && effects.ended.is_empty(), "{effects:?}");
    }
}
