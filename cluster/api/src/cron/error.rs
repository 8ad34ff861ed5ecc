//! Why a text is no schedule.

use thiserror::Error;

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CronError {
    /// Nothing is given.
    #[error("empty spec string: give five fields, as in \"0 3 * * *\"")]
    Empty,
    /// More or fewer fields than five.
    #[error(
        "expected exactly 5 fields, found {found}: minute, hour, day of the month, month, day of the week"
    )]
    Count {
        /// How many there are.
        found: usize,
    },
    /// An `@` word that nobody knows.
    #[error(
        "unrecognized descriptor {word:?}: there are @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly and @every with a duration"
    )]
    Descriptor {
        /// The word.
        word: String,
    },
    /// No duration stands behind `@every`.
    #[error("failed to parse duration {given:?}: give one as in \"@every 1h30m\"")]
    Duration {
        /// What stands there.
        given: String,
    },
    /// Neither a number nor a name.
    #[error("failed to parse {given:?} of the {field}: neither a number nor a name of it")]
    Word {
        /// Which field.
        field: &'static str,
        /// What stands there.
        given: String,
    },
    /// More than one `-` or `/` in one entry.
    #[error("{given:?} of the {field} is no range: give from-to/step")]
    Range {
        /// Which field.
        field: &'static str,
        /// The entry.
        given: String,
    },
    /// Outside what there is, backwards, or in steps of nothing.
    #[error("{given:?} of the {field} is not within {min} to {max}, or goes backwards or nowhere")]
    Bounds {
        /// Which field.
        field: &'static str,
        /// The entry.
        given: String,
        /// The lowest.
        min: u32,
        /// The highest.
        max: u32,
    },
    /// A field without any entry.
    #[error("the {field} is an empty list")]
    Nothing {
        /// Which field.
        field: &'static str,
    },
}
