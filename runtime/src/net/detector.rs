//! The failure detector: silence, judged.
//!
//! Pure: what was heard and the time go in, a change comes out. A node that was itself paused (its own looks came late)
//! does not blame its peers for the silence: they get a fresh start.

use std::time::{Duration, Instant};

/// A change in the judgement of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Suspect,
    HeardAgain,
    Lost,
}

#[derive(Debug)]
pub(crate) struct Detector {
    suspect_after: Duration,
    lost_after: Duration,
    suspect: bool,
    /// Silence counts from here at the earliest.
    since: Instant,
    looked: Instant,
}

impl Detector {
    pub(crate) fn new(suspect_after: Duration, lost_after: Duration, now: Instant) -> Self {
        Self { suspect_after, lost_after, suspect: false, since: now, looked: now }
    }

    /// Begins anew.
    pub(crate) fn reset(&mut self, now: Instant) {
        *self = Self::new(self.suspect_after, self.lost_after, now);
    }

    /// Judges, `heard` being when the last frame came.
    pub(crate) fn look(&mut self, heard: Option<Instant>, now: Instant) -> Option<Change> {
        if now.saturating_duration_since(self.looked) >= self.suspect_after {
            self.since = now;
        }
        self.looked = now;
        let last = heard.map_or(self.since, |heard| heard.max(self.since));
        let silence = now.saturating_duration_since(last);
        let was_suspect = self.suspect;
        self.suspect = silence >= self.suspect_after;
        match (was_suspect, self.suspect) {
            _ if silence >= self.lost_after => Some(Change::Lost),
            (false, true) => Some(Change::Suspect),
            (true, false) if heard.is_some_and(|heard| heard >= self.since) => {
                Some(Change::HeardAgain)
            }
            (true, false) => {
                self.suspect = true;
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_ambient::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_makes_suspect_then_lost_and_a_word_heals() {
        let start = clock::now();
        let mut detector = Detector::new(3 * SECOND, 10 * SECOND, start);
        let mut heard = start;
        let mut seen = Vec::new();
        for second in 1..=20 {
            let now = start + second * SECOND;
            if second == 5 {
                heard = now;
            }
            if let Some(change) = detector.look(Some(heard), now) {
                seen.push((second, change));
            }
        }
        let first: Vec<_> = seen.into_iter().take(4).collect();
        assert_eq!(
            first,
            [
                (3, Change::Suspect),
                (5, Change::HeardAgain),
                (8, Change::Suspect),
                (15, Change::Lost)
            ]
        );
    }

    #[test]
    fn a_node_that_was_paused_does_not_blame_its_peers() {
        let start = clock::now();
        let mut detector = Detector::new(3 * SECOND, 10 * SECOND, start);
        assert_eq!(detector.look(Some(start), start + SECOND), None);
        assert_eq!(detector.look(Some(start), start + 60 * SECOND), None);
        for second in 61..63 {
            assert_eq!(detector.look(Some(start), start + second * SECOND), None);
        }
        assert_eq!(detector.look(Some(start), start + 63 * SECOND), Some(Change::Suspect));
    }
}
