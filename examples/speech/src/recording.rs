//! Recordings of spoken digits: one by one from WAV files, or all from one packed file.
//!
//! Whatever its rate, width and channels, a recording comes out as mono samples at 8 kHz between
//! −1 and 1. Its name says what it is: `{digit}_{speaker}_{take}`. Takes 0 to 4 are for testing
//! and are never trained on; in the data that ships with this example they are spoken by voices
//! that occur nowhere else.

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Samples a second of everything that is heard.
pub const RATE: u32 = 8_000;

/// Takes below this one are for testing.
pub const FIRST_TRAINING_TAKE: u32 = 5;

/// One spoken digit.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The digit that is said, 0 to 9.
    pub digit: u8,
    /// Who says it.
    pub speaker: String,
    /// Which of this speaker's recordings of this digit.
    pub take: u32,
    /// Mono, 8 kHz, −1 to 1.
    pub samples: Vec<f32>,
}

/// Why recordings could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// The folder or a file in it cannot be read.
    #[error("{path}: {source}: check that the folder exists and that you may read it")]
    Unreadable {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a WAV file that we understand.
    #[error("{name} is not a readable WAV file ({source}): convert it to PCM or float WAV")]
    NotWav {
        /// Which file.
        name: String,
        /// What is wrong with it.
        source: hound::Error,
    },
    /// The name does not say what is in the file.
    #[error("{name} is not named {{digit}}_{{speaker}}_{{take}}.wav: rename it or move it away")]
    Name {
        /// The name found.
        name: String,
    },
    /// Training or testing would have nothing to work on.
    #[error(
        "{path} has {training} recordings to train on and {testing} to test on, and needs both: \
         takes 0 to 4 are for testing, 5 and above for training"
    )]
    TooFew {
        /// Which folder.
        path: PathBuf,
        /// Recordings with a take of 5 and above.
        training: usize,
        /// Recordings with a take of 0 to 4.
        testing: usize,
    },
    /// The packed file and its index do not belong together.
    #[error("the index of the packed recordings is broken in {line:?}: run data/make.sh again")]
    Index {
        /// The line that does not fit.
        line: String,
    },
}

/// What a data set is divided into.
#[derive(Debug, Clone, Default)]
pub struct DataSet {
    /// Trained on.
    pub training: Vec<Recording>,
    /// Only tested on.
    pub testing: Vec<Recording>,
}

impl DataSet {
    /// The synthesized digits that ship with this example; testing is by voices of its own.
    pub fn shipped() -> Result<Self, RecordingError> {
        let packed = include_bytes!("../data/digits.wav");
        unpack(packed, include_str!("../data/digits.csv")).map(Self::divided)
    }

    /// All `{digit}_{speaker}_{take}.wav` of a folder.
    pub fn folder(path: &Path) -> Result<Self, RecordingError> {
        let unreadable = |source| RecordingError::Unreadable { path: path.to_owned(), source };
        let mut files = std::fs::read_dir(path)
            .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>())
            .map_err(unreadable)?;
        files.retain(|file| file.extension().is_some_and(|e| e.eq_ignore_ascii_case("wav")));
        files.sort();
        let recordings = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
        let set = Self::divided(recordings);
        if set.training.is_empty() || set.testing.is_empty() {
            let (training, testing) = (set.training.len(), set.testing.len());
            return Err(RecordingError::TooFew { path: path.to_owned(), training, testing });
        }
        Ok(set)
    }

    fn divided(recordings: Vec<Recording>) -> Self {
        let (training, testing) =
            recordings.into_iter().partition(|one| one.take >= FIRST_TRAINING_TAKE);
        Self { training, testing }
    }
}

/// Reads one WAV file, which must be named `{digit}_{speaker}_{take}.wav`.
pub fn read(path: &Path) -> Result<Recording, RecordingError> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let (digit, speaker, take) = parse_name(&stem)?;
    let file = std::fs::File::open(path)
        .map_err(|source| RecordingError::Unreadable { path: path.to_owned(), source })?;
    let samples = decode(std::io::BufReader::new(file), &stem)?;
    Ok(Recording { digit, speaker, take, samples })
}

/// Takes the recordings out of one long WAV file; `index` has a line `name,start,length` for each.
pub fn unpack(packed: &[u8], index: &str) -> Result<Vec<Recording>, RecordingError> {
    let all = decode(std::io::Cursor::new(packed), "the packed recordings")?;
    let broken = |line: &str| RecordingError::Index { line: line.to_owned() };
    index
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut fields = line.split(',');
            let (digit, speaker, take) = parse_name(fields.next().unwrap_or_default())?;
            let mut number = || fields.next().and_then(|field| field.parse::<usize>().ok());
            let (Some(start), Some(length)) = (number(), number()) else {
                return Err(broken(line));
            };
            let end = start.checked_add(length).ok_or_else(|| broken(line))?;
            let samples = all.get(start..end).ok_or_else(|| broken(line))?.to_vec();
            Ok(Recording { digit, speaker, take, samples })
        })
        .collect()
}

fn parse_name(stem: &str) -> Result<(u8, String, u32), RecordingError> {
    let parsed = stem.split_once('_').and_then(|(digit, rest)| {
        let (speaker, take) = rest.rsplit_once('_')?;
        let digit = digit.parse::<u8>().ok().filter(|digit| *digit < 10)?;
        Some((digit, speaker.to_owned(), take.parse().ok()?))
    });
    parsed.ok_or_else(|| RecordingError::Name { name: stem.to_owned() })
}

/// Mono samples at [`RATE`] from a WAV file of any kind.
fn decode<R: Read + Seek>(input: R, name: &str) -> Result<Vec<f32>, RecordingError> {
    let not_wav = |source| RecordingError::NotWav { name: name.to_owned(), source };
    let mut reader = hound::WavReader::new(input).map_err(not_wav)?;
    let spec = reader.spec();
    let interleaved: Vec<f32> = match spec.sample_format {
        hound::SampleFormat::Float => reader.samples::<f32>().collect::<Result<_, _>>(),
        hound::SampleFormat::Int => {
            let full = 2f32.powi(i32::from(spec.bits_per_sample) - 1);
            reader.samples::<i32>().map(|s| s.map(|s| s as f32 / full)).collect::<Result<_, _>>()
        }
    }
    .map_err(not_wav)?;
    let channels = usize::from(spec.channels.max(1));
    let mono: Vec<f32> = interleaved
        .chunks_exact(channels)
        .map(|frame| frame.iter().sum::<f32>() / channels as f32)
        .collect();
    Ok(resample(&mono, spec.sample_rate))
}

/// Converts to [`RATE`] with a windowed sinc, which also keeps what lies above 4 kHz from folding
/// back.
pub fn resample(samples: &[f32], rate: u32) -> Vec<f32> {
    const REACH: f64 = 16.0;
    if rate == RATE || samples.is_empty() || rate == 0 {
        return samples.to_vec();
    }
    let step = f64::from(rate) / f64::from(RATE);
    let cutoff = (1.0 / step).min(1.0);
    let reach = REACH / cutoff;
    let length = (samples.len() as f64 / step).floor() as usize;
    (0..length)
        .map(|index| {
            let centre = index as f64 * step;
            let first = (centre - reach).ceil().max(0.0) as usize;
            let last = ((centre + reach).floor() as usize).min(samples.len() - 1);
            let sum: f64 = (first..=last)
                .map(|at| {
                    let offset = at as f64 - centre;
                    let angle = std::f64::consts::PI * offset * cutoff;
                    let sinc = if angle.abs() < 1e-9 { 1.0 } else { angle.sin() / angle };
                    let window = 0.5 + 0.5 * (std::f64::consts::PI * offset / reach).cos();
                    f64::from(samples[at]) * sinc * window * cutoff
                })
                .sum();
            sum as f32
        })
        .collect()
}

/// What is left when the silence before and after is cut off.
pub fn trim(samples: &[f32]) -> &[f32] {
    const WINDOW: usize = 80;
    let loudness: Vec<f32> = samples
        .chunks(WINDOW)
        .map(|part| (part.iter().map(|s| s * s).sum::<f32>() / part.len() as f32).sqrt())
        .collect();
    let floor = loudness.iter().copied().fold(0.0, f32::max) * 0.03;
    let loud = |level: &f32| *level > floor;
    let (Some(first), Some(last)) =
        (loudness.iter().position(loud), loudness.iter().rposition(loud))
    else {
        return samples;
    };
    let from = first.saturating_sub(2) * WINDOW;
    let to = ((last + 3) * WINDOW).min(samples.len());
    &samples[from..to]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_digit_speaker_and_take() {
        assert_eq!(parse_name("7_mr_x_12").unwrap(), (7, "mr_x".to_owned(), 12));
        for wrong in ["", "seven_a_1", "10_a_1", "7_a", "7_a_x"] {
            assert!(matches!(parse_name(wrong), Err(RecordingError::Name { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_tone_keeps_its_pitch_and_what_cannot_be_kept_is_removed() {
        let tone = |hertz: f64| -> Vec<f32> {
            (0..22_050)
                .map(|i| (f64::from(i) / 22_050.0 * hertz * std::f64::consts::TAU).sin() as f32)
                .collect()
        };
        let energy =
            |samples: &[f32]| samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32;
        let kept = resample(&tone(1_000.0), 22_050);
        assert_eq!(kept.len(), 8_000);
        let crossings = kept.windows(2).filter(|w| w[0] < 0.0 && w[1] >= 0.0).count();
        assert!((998..=1_001).contains(&crossings), "{crossings} periods");
        assert!((energy(&kept) - 0.5).abs() < 0.02);
        assert!(energy(&resample(&tone(6_000.0), 22_050)) < 0.001);
    }

    #[test]
    fn the_shipped_testing_voices_are_never_trained_on() {
        let set = DataSet::shipped().unwrap();
        assert!(set.training.len() >= 300 && set.testing.len() >= 80);
        for tested in &set.testing {
            assert!(set.training.iter().all(|trained| trained.speaker != tested.speaker));
        }
    }

    #[test]
    fn an_index_that_points_past_the_end_is_refused() {
        let packed = include_bytes!("../data/digits.wav");
        let outcome = unpack(packed, "1_a_5,0,99999999999");
        assert!(matches!(outcome, Err(RecordingError::Index { .. })));
    }
}
