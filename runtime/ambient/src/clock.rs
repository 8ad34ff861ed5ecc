//! The time.

use jiff::Timestamp;
use std::{
    cell::Cell,
    time::{Instant, SystemTime},
};

thread_local! {
    /// In a simulation, the time of day at this moment of the monotonic clock.
    static BASE: Cell<Option<Base>> = const { Cell::new(None) };
}

/// A time of day and the moment at which it was that.
pub(crate) type Base = (SystemTime, Instant);

/// This moment by the monotonic clock: tokio's, which a test can pause. It stands still while the machine sleeps.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time of day. It may jump, also backwards: what has to last for a while is counted by [`now`].
#[must_use]
pub fn wall() -> SystemTime {
    BASE.get().map_or_else(SystemTime::now, |(wall, at)| wall + now().duration_since(at))
}

/// The time of day as objects carry it.
///
/// A clock set beyond the year 9999 reads as the last moment before that.
#[must_use]
pub fn timestamp() -> Timestamp {
    Timestamp::try_from(wall()).unwrap_or(Timestamp::MAX)
}

/// Puts another base in, and returns the one before.
pub(crate) fn rebase(base: Option<Base>) -> Option<Base> {
    BASE.replace(base)
}
