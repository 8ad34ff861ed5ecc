//! What runs in the pods of the example's training jobs: `speech [--data DIR] [--seed N]`.

use crate::network::{self, Digits};
use crate::recording::{DataSet, RecordingError};
use impresario_actors::training::guest::{self, GuestConfig, GuestError, Method};
use impresario_actors::training::model::Model;
use std::ffi::OsString;
use std::path::PathBuf;
use thiserror::Error;

/// The program's name, as in the jobs' commands.
pub const PROGRAM: &str = "speech";

/// Why a member could not do its work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpeechError {
    /// The command line is not understood.
    #[error("{argument:?} is not understood: use `speech [--data DIR] [--seed N]`")]
    Usage {
        /// The argument.
        argument: OsString,
    },
    /// The recordings cannot be used.
    #[error(transparent)]
    Recordings(#[from] RecordingError),
    /// The member cannot work for its job.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

#[derive(Debug, PartialEq)]
struct Arguments {
    data: Option<PathBuf>,
    seed: u64,
}

impl Arguments {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, SpeechError> {
        let mut arguments = arguments.into_iter();
        let mut parsed = Self { data: None, seed: 1 };
        let usage = |argument: OsString| SpeechError::Usage { argument };
        match arguments.next() {
            Some(program) if program == PROGRAM => {}
            other => return Err(usage(other.unwrap_or_default())),
        }
        while let Some(argument) = arguments.next() {
            let value = arguments.next().ok_or_else(|| usage(argument.clone()))?;
            match argument.to_str() {
                Some("--data") => parsed.data = Some(value.into()),
                Some("--seed") => {
                    let seed = value.to_str().and_then(|text| text.parse().ok());
                    parsed.seed = seed.ok_or_else(|| usage(value))?;
                }
                _ => return Err(usage(argument)),
            }
        }
        Ok(parsed)
    }
}

/// The recordings that a job learns from.
pub fn recordings(data: Option<&std::path::Path>) -> Result<DataSet, RecordingError> {
    data.map_or_else(DataSet::shipped, DataSet::folder)
}

/// Works as parameter server or trainer, as the pod's environment says. Must run inside an actix
/// `System`; returns when the job needs this member no more.
pub async fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), SpeechError> {
    let arguments = Arguments::parse(arguments)?;
    let config = GuestConfig::from_environment()?;
    let method = Method {
        batch: network::BATCH as u64,
        optimizer: network::OPTIMIZER,
        seed: arguments.seed,
    };
    let model = || -> Result<Box<dyn Model>, RecordingError> {
        Ok(Box::new(Digits::new(&recordings(arguments.data.as_deref())?)))
    };
    guest::run(config, method, model).await??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, SpeechError> {
        Arguments::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn arguments_come_in_any_order_and_a_wrong_one_is_named() {
        let parsed = parse(&["speech", "--seed", "7", "--data", "/x"]).unwrap();
        assert_eq!(parsed, Arguments { data: Some("/x".into()), seed: 7 });
        assert_eq!(parse(&["speech"]).unwrap(), Arguments { data: None, seed: 1 });
        for wrong in [&["other"][..], &[], &["speech", "--seed"], &["speech", "--seed", "x"]] {
            assert!(matches!(parse(wrong), Err(SpeechError::Usage { .. })), "{wrong:?}");
        }
    }
}
