//! Histograms for openraft's figures, in two kilobytes each.
//!
//! This is our own answer to the part of the interface of `base2histogram` 0.2.3 that openraft
//! uses. The crate itself computes tables for sixteen resolutions when the first histogram is made:
//! 26.8 MB of memory in every process, for one resolution that is used. Here a bucket is computed.
//!
//! Four buckets for each power of two: a percentile is told a quarter too low at most.
//! `docs/decisions/0005-small-histograms.md` says when this goes away.

#![warn(missing_docs)]

use std::fmt;
use std::marker::PhantomData;

/// How many buckets there are in each power of two, and below the first that has so many values.
const GROUP: usize = 4;
/// The bits that tell them apart.
const BITS: u32 = 2;
/// Buckets of all values of 64 bits.
const BUCKETS: usize = GROUP * (64 - BITS as usize + 1);

/// Counts values by their magnitude. `T` is what openraft may tag them with, and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// Grows up to the largest bucket in use.
    counts: Vec<u64>,
    tag: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// One without values.
    #[must_use]
    pub const fn new() -> Self {
        Self { counts: Vec::new(), tag: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = bucket(value);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
    }

    /// How many values there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The smallest value of the bucket that `permille` of all values are at or below.
    #[must_use]
    fn permille(&self, permille: u64) -> u64 {
        let rank = u128::from(self.total()) * u128::from(permille);
        let rank = rank.div_ceil(1000).max(1);
        let mut seen = 0_u128;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= rank {
                return least(bucket);
            }
        }
        0
    }

    /// The usual percentiles.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.permille(1),
            p1: self.permille(10),
            p5: self.permille(50),
            p10: self.permille(100),
            p50: self.permille(500),
            p90: self.permille(900),
            p99: self.permille(990),
            p99_9: self.permille(999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The bucket of a value.
fn bucket(value: u64) -> usize {
    if value < GROUP as u64 {
        return value as usize;
    }
    let shift = value.ilog2() - BITS;
    (shift as usize + 1) * GROUP + ((value >> shift) as usize & (GROUP - 1))
}

/// The smallest value of a bucket.
fn least(bucket: usize) -> u64 {
    debug_assert!(bucket < BUCKETS);
    match bucket / GROUP {
        0 => bucket as u64,
        group => ((GROUP + bucket % GROUP) as u64) << (group - 1),
    }
}

/// What is told of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values.
    pub samples: u64,
    /// One in a thousand is at or below it.
    pub p0_1: u64,
    /// One in a hundred.
    pub p1: u64,
    /// One in twenty.
    pub p5: u64,
    /// One in ten.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// Nine in ten.
    pub p90: u64,
    /// Ninety-nine in a hundred.
    pub p99: u64,
    /// 999 in a thousand.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, p99_9, .. } = self;
        write!(f, "samples: {samples}, P50: {p50}, P90: {p90}, P99: {p99}, P99.9: {p99_9}")
    }
}

/// Several histograms, each under its name.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart(Vec<(String, Histogram)>);

impl AsciiChart {
    /// One without histograms.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a histogram.
    #[must_use]
    #[allow(clippy::should_implement_trait)] // the name that openraft calls
    pub fn add(mut self, name: &str, histogram: Histogram) -> Self {
        self.0.push((name.to_owned(), histogram));
        self
    }

    /// Every bucket that is not empty, one a line.
    #[must_use]
    pub const fn detailed(&self) -> &Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.0 {
            writeln!(f, "{name}")?;
            let most = histogram.counts.iter().copied().max().unwrap_or(0).max(1);
            let counts = histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0);
            for (bucket, count) in counts {
                let width = usize::try_from(u128::from(*count) * 40 / u128::from(most));
                let bar = "#".repeat(width.unwrap_or(40).max(1));
                writeln!(f, "{:>20} {bar} {count}", least(bucket))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_between_its_bucket_and_the_next() {
        let near = |value: u64| [value.saturating_sub(1), value, value.saturating_add(1)];
        for value in (0..64).flat_map(|bit| near(1 << bit)).chain([u64::MAX]) {
            let bucket = bucket(value);
            assert!(bucket < BUCKETS && least(bucket) <= value, "{value}");
            assert!(bucket + 1 == BUCKETS || value < least(bucket + 1), "{value}");
            assert!(value - least(bucket) <= value / 4, "{value}");
        }
    }

    #[test]
    fn percentiles_are_where_the_values_are() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        for _ in 0..99 {
            histogram.record(2);
        }
        histogram.record(1 << 40);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p50, stats.p99, stats.p99_9), (100, 2, 2, 1 << 40));
    }
}
