//! Chance.

use rand::{
    CryptoRng, Rng, RngCore,
    distr::{
        Distribution, StandardUniform,
        uniform::{SampleRange, SampleUniform},
    },
    rngs::StdRng,
};
use std::cell::RefCell;

thread_local! {
    /// In a simulation, where the numbers of this thread come from.
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Numbers that nobody can foresee: from the operating system's generator, or in a simulation from its seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Source;

/// Where numbers come from.
#[must_use]
pub fn rng() -> Source {
    Source
}

/// A number, or whatever else is drawn evenly from all of its kind.
#[must_use]
pub fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    Source.random()
}

/// A number of this range, drawn evenly.
///
/// # Panics
///
/// If the range is empty, as [`Rng::random_range`].
pub fn random_range<T: SampleUniform, R: SampleRange<T>>(range: R) -> T {
    Source.random_range(range)
}

fn with<T>(draw: impl FnOnce(&mut dyn RngCore) -> T) -> T {
    SEEDED.with_borrow_mut(|seeded| match seeded {
        Some(seeded) => draw(seeded),
        None => draw(&mut rand::rng()),
    })
}

impl RngCore for Source {
    fn next_u32(&mut self) -> u32 {
        with(|rng| rng.next_u32())
    }

    fn next_u64(&mut self) -> u64 {
        with(|rng| rng.next_u64())
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        with(|rng| rng.fill_bytes(bytes));
    }
}

// Both generators behind it are.
impl CryptoRng for Source {}

/// Puts another generator in, and returns the one before.
pub(crate) fn reseed(seeded: Option<StdRng>) -> Option<StdRng> {
    SEEDED.replace(seeded)
}
