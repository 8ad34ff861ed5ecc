//! Changes of what all controllers of a kind look at, wherever they are: told at once, and then seldom.
//!
//! Whoever writes one such object could keep all controllers of a kind busy, and those of all members: a node writes its
//! own. So what changes within a pause is taken together, and what is by its end as it was before is no change.

use super::super::mirror::{Change, Changes, Mirror, Mirrored, Seen};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The shortest time between two times that changes are told of.
const PAUSE: Duration = Duration::from_secs(1);
/// And for each who is told: who is one of many is told less often.
const EACH: Duration = Duration::from_millis(1);

/// An object as it was when changes were told of last, and as it is.
pub(super) type Versions<T> = (Option<Seen<T>>, Option<Seen<T>>);

/// What has changed.
pub(super) enum Changed<T> {
    /// These.
    Some(Vec<Versions<T>>),
    /// Changes were missed.
    Anything,
}

/// The changes of a mirror, together.
pub(super) struct Together<T> {
    changes: Changes<T>,
    /// Held: the mirror must go on as long as it is followed.
    _mirror: Mirror<T>,
    pending: BTreeMap<(String, String), Versions<T>>,
    is_anything: bool,
    due: Instant,
}

impl<T: Mirrored> Together<T> {
    /// Those from now on.
    pub(super) fn of(mirror: &Mirror<T>) -> Self {
        Self {
            changes: mirror.changes(),
            _mirror: mirror.clone(),
            pending: BTreeMap::new(),
            is_anything: false,
            due: Instant::now(),
        }
    }

    /// Whom the next changes concern, as `whom` says; not before the pause after the last ones is over. Of what does not
    /// `differ` nothing is told. `None` where the mirror has ended.
    pub(super) async fn next(
        &mut self,
        differ: impl Fn(Option<&Seen<T>>, Option<&Seen<T>>) -> bool,
        mut whom: impl FnMut(Changed<T>) -> Vec<String>,
    ) -> Option<Vec<String>> {
        loop {
            let waits = self.is_anything || !self.pending.is_empty();
            tokio::select! {
                change = self.changes.next() => match change? {
                    Change::Put { now, before } => self.note(before, Some(now), &differ),
                    Change::Deleted { before } => self.note(Some(before), None, &differ),
                    Change::Everything => {
                        self.pending.clear();
                        self.is_anything = true;
                    }
                },
                () = tokio::time::sleep_until(self.due), if waits => {
                    let pending = std::mem::take(&mut self.pending);
                    let uids = whom(if std::mem::take(&mut self.is_anything) {
                        Changed::Anything
                    } else {
                        Changed::Some(pending.into_values().collect())
                    });
                    let many = u32::try_from(uids.len()).unwrap_or(u32::MAX);
                    self.due = Instant::now() + PAUSE.max(EACH * many);
                    if !uids.is_empty() {
                        return Some(uids);
                    }
                }
            }
        }
    }

    fn note(
        &mut self,
        before: Option<Seen<T>>,
        now: Option<Seen<T>>,
        differ: impl Fn(Option<&Seen<T>>, Option<&Seen<T>>) -> bool,
    ) {
        let Some(key) = now.as_ref().or(before.as_ref()).map(|seen| &seen.entry.key) else {
            return;
        };
        let place = (key.namespace.clone(), key.name.clone());
        let before = self.pending.remove(&place).map_or(before, |(first, _)| first);
        if differ(before.as_ref(), now.as_ref()) {
            self.pending.insert(place, (before, now));
        }
    }
}
