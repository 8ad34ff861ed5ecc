//! What the network sees of a recording: a picture of [`FRAMES`] × [`BANDS`] log-mel energies.
//!
//! The frames are spread evenly over the trimmed recording, so a digit that is said slowly and one
//! that is said fast give the same picture. Each picture has mean 0 and deviation 1: loudness is
//! gone. [`Augment`] varies a picture the way that other voices and rooms would.

use crate::recording::{RATE, trim};
use rand::Rng;
use rustfft::{Fft, FftPlanner, num_complex::Complex};
use std::sync::Arc;

/// Moments at which the spectrum is taken.
pub const FRAMES: usize = 32;
/// Mel bands of each spectrum.
pub const BANDS: usize = 32;

const WINDOW: usize = 256;
const LOWEST_HZ: f32 = 80.0;
const HIGHEST_HZ: f32 = 3_900.0;

/// Turns samples into pictures. Holds the tables that all recordings share.
pub struct Spectrograph {
    fft: Arc<dyn Fft<f32>>,
    window: Vec<f32>,
    /// For each band the FFT bins that it hears, with their weights.
    bands: Vec<Vec<(usize, f32)>>,
}

impl Default for Spectrograph {
    fn default() -> Self {
        let window = (0..WINDOW)
            .map(|i| 0.5 - 0.5 * (std::f32::consts::TAU * i as f32 / WINDOW as f32).cos())
            .collect();
        Self { fft: FftPlanner::new().plan_fft_forward(WINDOW), window, bands: mel_bands() }
    }
}

fn mel_bands() -> Vec<Vec<(usize, f32)>> {
    let mel = |hertz: f32| 2_595.0 * (1.0 + hertz / 700.0).log10();
    let hertz = |mel: f32| 700.0 * (10f32.powf(mel / 2_595.0) - 1.0);
    let (low, high) = (mel(LOWEST_HZ), mel(HIGHEST_HZ));
    let edge = |index: usize| hertz(low + (high - low) * index as f32 / (BANDS + 1) as f32);
    let bin_width = RATE as f32 / WINDOW as f32;
    (0..BANDS)
        .map(|band| {
            let centre = edge(band + 1);
            // Low bands are narrower than a bin: each must hear at least its neighbours.
            let left = edge(band).min(centre - bin_width);
            let right = edge(band + 2).max(centre + bin_width);
            (0..=WINDOW / 2)
                .filter_map(|bin| {
                    let at = bin as f32 * bin_width;
                    let weight =
                        ((at - left) / (centre - left)).min((right - at) / (right - centre));
                    (weight > 0.0).then_some((bin, weight))
                })
                .collect()
        })
        .collect()
}

impl Spectrograph {
    /// The picture of a recording, row by row in time.
    pub fn picture(&self, samples: &[f32]) -> Vec<f32> {
        let samples = trim(samples);
        let span = samples.len().saturating_sub(WINDOW / 2) as f32;
        let mut buffer = vec![Complex::new(0.0, 0.0); WINDOW];
        let mut picture = Vec::with_capacity(FRAMES * BANDS);
        for frame in 0..FRAMES {
            let start =
                (span * frame as f32 / (FRAMES - 1) as f32) as isize - (WINDOW / 4) as isize;
            for (offset, (slot, weight)) in buffer.iter_mut().zip(&self.window).enumerate() {
                let sample = usize::try_from(start + offset as isize)
                    .ok()
                    .and_then(|at| samples.get(at))
                    .copied()
                    .unwrap_or(0.0);
                *slot = Complex::new(sample * weight, 0.0);
            }
            self.fft.process(&mut buffer);
            picture.extend(self.bands.iter().map(|band| {
                let energy: f32 =
                    band.iter().map(|(bin, weight)| buffer[*bin].norm_sqr() * weight).sum();
                energy
            }));
        }
        // Forty-five decibels below the loudest is silence.
        let floor = picture.iter().copied().fold(1e-9, f32::max) * 3e-5;
        for energy in &mut picture {
            *energy = (*energy + floor).ln();
        }
        standardize(&mut picture);
        picture
    }
}

fn standardize(picture: &mut [f32]) {
    let count = picture.len() as f32;
    let mean = picture.iter().sum::<f32>() / count;
    let variance = picture.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / count;
    let scale = 1.0 / variance.sqrt().max(1e-3);
    for value in picture {
        *value = (*value - mean) * scale;
    }
}

/// How much a picture is varied for training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augment {
    /// Longest stretch of the frequency axis, in bands at its middle: other vocal tracts.
    pub bands: f32,
    /// Largest part of the time axis that is cut off or added at either end: other trimming.
    pub time: f32,
    /// Largest tilt of the spectrum from end to end: other microphones.
    pub tilt: f32,
    /// Deviation of the noise that is added to each point.
    pub noise: f32,
    /// Longest strip of frames or bands that is wiped out.
    pub mask: usize,
}

impl Default for Augment {
    fn default() -> Self {
        Self { bands: 1.5, time: 0.08, tilt: 0.4, noise: 0.15, mask: 4 }
    }
}

impl Augment {
    /// Appends a varied copy of `picture` to `out`.
    pub fn vary(&self, picture: &[f32], random: &mut impl Rng, out: &mut Vec<f32>) {
        let mut spread =
            |limit: f32| if limit > 0.0 { random.random_range(-limit..limit) } else { 0.0 };
        let (from, to) = (spread(self.time), 1.0 + spread(self.time));
        let (stretch, shift) = (1.0 + spread(self.bands) / BANDS as f32, spread(self.bands));
        let (tilt, gain) = (spread(self.tilt), 1.0 + spread(0.15));
        let start = out.len();
        for frame in 0..FRAMES {
            let at =
                (from + (to - from) * frame as f32 / (FRAMES - 1) as f32) * (FRAMES - 1) as f32;
            for band in 0..BANDS {
                let level = between(picture, at, band as f32 * stretch + shift);
                let slope = tilt * (band as f32 / (BANDS - 1) as f32 - 0.5);
                out.push(level * gain + slope + self.noise * nearly_normal(random));
            }
        }
        let varied = &mut out[start..];
        if self.mask > 0 {
            let (width, first) = strip(self.mask, FRAMES, random);
            varied[first * BANDS..(first + width) * BANDS].fill(0.0);
            let (width, first) = strip(self.mask, BANDS, random);
            for row in varied.chunks_exact_mut(BANDS) {
                row[first..first + width].fill(0.0);
            }
        }
    }
}

fn strip(longest: usize, length: usize, random: &mut impl Rng) -> (usize, usize) {
    let width = random.random_range(0..=longest.min(length));
    (width, random.random_range(0..=length - width))
}

/// The sum of four uniform numbers is close enough to a normal one, and cheap.
fn nearly_normal(random: &mut impl Rng) -> f32 {
    let bits = random.next_u64();
    let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
    (sum as f32 / 65_535.0 - 2.0) * 1.732
}

fn between(picture: &[f32], frame: f32, band: f32) -> f32 {
    let frame = frame.clamp(0.0, (FRAMES - 1) as f32);
    let band = band.clamp(0.0, (BANDS - 1) as f32);
    let (f, b) = (frame as usize, band as usize);
    let (f1, b1) = ((f + 1).min(FRAMES - 1), (b + 1).min(BANDS - 1));
    let (df, db) = (frame - f as f32, band - b as f32);
    let point = |f: usize, b: usize| picture[f * BANDS + b];
    (point(f, b) * (1.0 - db) + point(f, b1) * db) * (1.0 - df)
        + (point(f1, b) * (1.0 - db) + point(f1, b1) * db) * df
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn tone(hertz: f32, gain: f32) -> Vec<f32> {
        (0..4_000)
            .map(|i| gain * (std::f32::consts::TAU * hertz * i as f32 / RATE as f32).sin())
            .collect()
    }

    #[test]
    fn a_higher_tone_lights_a_higher_band_and_loudness_does_not_matter() {
        let spectrograph = Spectrograph::default();
        let brightest = |picture: &[f32]| {
            let row = &picture[FRAMES / 2 * BANDS..(FRAMES / 2 + 1) * BANDS];
            (0..BANDS).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap()
        };
        let low = spectrograph.picture(&tone(300.0, 0.5));
        let high = spectrograph.picture(&tone(2_500.0, 0.5));
        assert!(brightest(&low) + 8 < brightest(&high));
        let quiet = spectrograph.picture(&tone(300.0, 0.05));
        assert!(low.iter().zip(&quiet).all(|(a, b)| (a - b).abs() < 0.05));
    }

    #[test]
    fn silence_and_nothing_at_all_give_finite_pictures() {
        let spectrograph = Spectrograph::default();
        for samples in [vec![], vec![0.0; 10], vec![0.0; 5_000]] {
            let picture = spectrograph.picture(&samples);
            assert_eq!(picture.len(), FRAMES * BANDS);
            assert!(picture.iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn the_same_seed_varies_a_picture_in_the_same_way() {
        let picture = Spectrograph::default().picture(&tone(700.0, 0.3));
        let varied = |seed| {
            let mut out = Vec::new();
            let mut random = rand::rngs::StdRng::seed_from_u64(seed);
            Augment::default().vary(&picture, &mut random, &mut out);
            out
        };
        assert_eq!(varied(1), varied(1));
        assert_ne!(varied(1), varied(2));
        assert_eq!(varied(1).len(), picture.len());
    }
}
