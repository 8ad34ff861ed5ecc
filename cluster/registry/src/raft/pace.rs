//! How long a message to a member may take: by its size, and by how fast the link has been.
//!
//! A limit that does not know the size gives a large entry up each time before it is through, and with it all
//! that is behind it. Plain functions of what was seen.

use std::time::Duration;

/// What a small message is given: several times a round trip and a sync of the other's disk.
const BASE: Duration = Duration::from_secs(1);
/// A message this large says something about the link.
const TELLING_BYTES: usize = 64 * 1024;
/// Bytes a second that a link is taken to have before anything is known of it.
const FIRST: f64 = 1024.0 * 1024.0;
/// A link that is slower than this is not waited for: 2 kB a second.
const SLOWEST: f64 = 2.0 * 1024.0;
const FASTEST: f64 = 1e10;
/// No message is given more: by then the connection is lost or the link is of no use.
const MOST: Duration = Duration::from_mins(10);
/// A message that is cut is as large as goes through in this time.
const PIECE: Duration = Duration::from_secs(2);
/// A piece is never smaller than this, nor larger than that.
const PIECE_BYTES: (f64, f64) = (256.0 * 1024.0, 8.0 * 1024.0 * 1024.0);

/// What is known of a link's speed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Bytes a second.
    rate: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rate: FIRST }
    }
}

impl Pace {
    /// How long a message of this size is waited for: four times what it should take.
    pub fn limit(&self, bytes: usize) -> Duration {
        (BASE + Duration::from_secs_f64(4.0 * bytes as f64 / self.rate)).min(MOST)
    }

    /// How many bytes to put into one message.
    pub fn piece(&self) -> usize {
        (self.rate * PIECE.as_secs_f64()).clamp(PIECE_BYTES.0, PIECE_BYTES.1) as usize
    }

    /// A message of this size was answered after this time.
    pub fn answered(&mut self, bytes: usize, after: Duration) {
        if bytes >= TELLING_BYTES {
            let seen = bytes as f64 / after.as_secs_f64().max(1e-6);
            self.rate = (0.5 * self.rate + 0.5 * seen).clamp(SLOWEST, FASTEST);
        }
    }

    /// A message of this size was not answered in its limit.
    pub fn missed(&mut self, bytes: usize) {
        // A small one says that the member is away, not that the link is slow.
        if bytes >= TELLING_BYTES {
            self.rate = (self.rate / 2.0).max(SLOWEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a message over a link until it is answered in its limit; how many tries that took.
    fn tries(pace: &mut Pace, bytes: usize, rate: f64) -> u32 {
        let takes = Duration::from_secs_f64(bytes as f64 / rate);
        for tried in 1..20 {
            if takes <= pace.limit(bytes) {
                pace.answered(bytes, takes);
                return tried;
            }
            pace.missed(bytes);
        }
        panic!("{bytes} bytes never go through at {rate} bytes a second");
    }

    #[test]
    fn three_megabytes_go_through_any_link_that_is_of_use_and_the_next_ones_at_once() {
        for rate in [16e3, 64e3, 125e3, 1e6, 1e8] {
            let mut pace = Pace::default();
            assert!(tries(&mut pace, 3 << 20, rate) < 7, "at {rate}");
            assert_eq!(tries(&mut pace, 3 << 20, rate), 1, "at {rate}");
        }
    }

    #[test]
    fn a_small_message_is_given_up_soon_whatever_the_link_and_says_nothing_about_it() {
        let mut pace = Pace::default();
        let before = pace;
        pace.missed(300);
        assert_eq!(pace, before);
        assert!(pace.limit(300) < 2 * BASE);
        for _ in 0..100 {
            pace.missed(1 << 20);
        }
        assert!(pace.limit(300) < 2 * BASE);
        assert!(pace.limit(64 << 20) <= MOST && pace.piece() >= 256 * 1024);
    }
}
