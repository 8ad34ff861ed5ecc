//! `imp chaos run` as a test runs it, and what it reports.

use crate::imp;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// The environment variable that chooses a fault of the product; test builds alone know it.
pub const MUTANT: &str = "IMPRESARIO_MUTANT";

/// A run that is over.
#[derive(Debug)]
pub struct ChaosRun {
    /// The exit code: 0 when every promise was kept, 3 when one was not.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl ChaosRun {
    /// Runs the harness for so many seconds of faults, its folders below `folder`. With a fault of the product, some of
    /// which keep a cluster from ever healing, it has so many seconds for that.
    ///
    /// # Panics
    /// When the program does not start.
    pub fn of(
        seed: u64,
        seconds: u64,
        mutant: Option<(&str, u64)>,
        json: bool,
        folder: &Path,
    ) -> Self {
        let mut command = Command::new(imp());
        command
            .args(["chaos", "run", "--seed", &seed.to_string()])
            .args(["--duration", &format!("{seconds}s")])
            .env("TMPDIR", folder)
            .env_remove(MUTANT)
            .stdin(Stdio::null());
        if json {
            command.args(["-o", "json"]);
        }
        if let Some((mutant, heal)) = mutant {
            command.env(MUTANT, mutant).args(["--heal", &format!("{heal}s")]);
        }
        let output = command.output().expect("imp starts");
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The report.
    ///
    /// # Panics
    /// When there is none.
    pub fn report(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }
}

/// The names of the checks of a report that passed, or that did not.
///
/// # Panics
/// When it is no report.
pub fn checks(report: &Value, passed: bool) -> Vec<&str> {
    let checks = report["checks"].as_array().expect("checks");
    let which = checks.iter().filter(|check| check["passed"] == passed);
    which.map(|check| check["name"].as_str().expect("a name")).collect()
}

/// The programs that still run out of a folder.
pub fn left_over(folder: &Path) -> Vec<String> {
    let folder = folder.to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&folder))
        .collect()
}
