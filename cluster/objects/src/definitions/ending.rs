//! Definitions that are deleted: first their objects are told to go, then the definition goes when they have.
//!
//! In one look only a portion is deleted, of all definitions together, and they take turns: names are accepted and kinds
//! established between two portions of a large deletion. Objects that others hold are counted, and not read again, at
//! intervals that grow.

use super::desk::{After, Desk, PAGE, Said, holds};
use super::follow::Followed;
use super::names::taken;
use futures_util::{StreamExt as _, stream};
use impresario_api::crd::FINALIZER;
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_client::objects::stored::text;
use impresario_runtime::{Backoff, clock, random};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Deletions that are under way at once.
const CONCURRENT: usize = 16;
/// When objects that others hold are counted again.
const HELD: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };

/// How far the deletions are, as this activation knows: another begins again, and comes to the same end.
#[derive(Debug, Default)]
pub(super) struct Endings {
    /// By the definition's uid.
    all: BTreeMap<String, Ending>,
    /// The name of the definition whose turn was the last.
    last: String,
}

#[derive(Debug, Default)]
struct Ending {
    /// Behind which object the next portion begins.
    after: After,
    /// Whether one of them could not be deleted, so that all are looked at once more.
    failed: bool,
    /// Whether all have been told to go.
    told: bool,
    /// How often some were left.
    waits: u32,
    /// When it is looked at again.
    again: Option<Timestamp>,
}

impl Ending {
    /// Looks again later, and then later still.
    fn wait(&mut self, now: Timestamp, jitter: f64) {
        let pause = SignedDuration::try_from(HELD.wait(self.waits, jitter)).unwrap_or_default();
        self.waits = self.waits.saturating_add(1);
        self.again = now.checked_add(pause).ok();
    }
}

impl Endings {
    /// Deletes a portion of the objects of these, and lets those go that have none. When to look again although nothing
    /// changes; what could be done was done when it gives an error, which is the first.
    pub(super) async fn go_on(
        &mut self,
        desk: &Desk<'_>,
        mut going: Vec<Followed>,
    ) -> Result<Option<Timestamp>, Status> {
        let uids: BTreeSet<&str> =
            going.iter().map(|followed| text(&followed.object, "/metadata/uid")).collect();
        self.all.retain(|uid, _| uids.contains(uid.as_str()));
        // In the order of names, from the one on that is behind the last.
        let name = |followed: &Followed| text(&followed.object, "/metadata/name").to_owned();
        going.sort_by_cached_key(|followed| (name(followed) <= self.last, name(followed)));
        let (mut next, mut first, mut room) = (None, None, PAGE);
        for followed in &going {
            let now = clock::timestamp();
            if room == 0 {
                next = Some(now);
                break;
            }
            let before = room;
            let uid = text(&followed.object, "/metadata/uid").to_owned();
            let ending = self.all.entry(uid).or_default();
            match ending.go_on(desk, followed, now, &mut room).await {
                Ok(again) => next = next.into_iter().chain(again).min(),
                // Gone, or changed: it is told of.
                Err(status) if status.is_superseded() => {}
                Err(status) if status.is_fenced() => return Err(status),
                Err(status) => first = first.or(Some(status)),
            }
            if room < before {
                self.last = name(followed);
            }
        }
        first.map_or(Ok(next), Err)
    }
}

impl Ending {
    async fn go_on(
        &mut self,
        desk: &Desk<'_>,
        followed: &Followed,
        now: Timestamp,
        room: &mut usize,
    ) -> Result<Option<Timestamp>, Status> {
        let object = &*followed.object;
        let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
        if !finalizers.is_some_and(|all| all.iter().any(|one| one == FINALIZER)) {
            return Ok(None);
        }
        if let Some(again) = self.again.filter(|again| *again > now) {
            return Ok(Some(again));
        }
        let failed = match (&followed.row, &followed.fault) {
            (Some(row), _) => {
                if !holds(object, "Terminating") {
                    let why = "CustomResource deletion is in progress";
                    desk.say(object, &[in_progress(why)], None).await?;
                }
                if !self.told && !self.tell(desk, row, now, room).await? {
                    return Ok(Some(now));
                }
                let left = desk.left(object).await?;
                if left > 0 {
                    let why = format!("{left} objects wait for their finalizers");
                    desk.say(object, &[in_progress(&why)], None).await?;
                    self.wait(now, random::random());
                    return Ok(self.again);
                }
                None
            }
            // Its objects are there, and cannot be deleted here: it stays until another program can.
            (None, Some(why)) => Some(why.clone()),
            // It was never served, or its names were taken from it: then they are given back, and it is served.
            (None, None) if desk.left(object).await? > 0 => {
                let names = object.pointer("/spec/names").unwrap_or(&Value::Null);
                match taken(desk, object).await?.refuse(names) {
                    None => {
                        let said = ("NamesAccepted", true, "NoConflicts", "no conflicts found");
                        desk.say(object, &[said], Some(names)).await?;
                        return Ok(None);
                    }
                    Some((_, why)) => Some(format!("its objects are not served: {why}")),
                }
            }
            (None, None) => None,
        };
        if let Some(why) = failed {
            let said = ("Terminating", true, "InstanceDeletionFailed", why.as_str());
            desk.say(object, &[said], None).await?;
            self.wait(now, random::random());
            return Ok(self.again);
        }
        desk.release(object).await?;
        Ok(None)
    }

    /// Tells objects to go, as many as there is room for; whether all have been told. None comes: the definition is marked.
    async fn tell(
        &mut self,
        desk: &Desk<'_>,
        row: &Row,
        now: Timestamp,
        room: &mut usize,
    ) -> Result<bool, Status> {
        let mut first = None;
        while *room > 0 {
            let (entries, behind) = desk.page(row, self.after.clone(), *room).await?;
            *room = room.saturating_sub(entries.len());
            let deletions = entries.into_iter().map(|entry| desk.delete(row, entry));
            let deletions: Vec<_> = deletions.collect();
            let mut outcomes = stream::iter(deletions).buffer_unordered(CONCURRENT);
            while let Some(outcome) = outcomes.next().await {
                match outcome {
                    Err(status) if status.is_fenced() => return Err(status),
                    Err(status) => {
                        self.failed = true;
                        first = first.or(Some(status));
                    }
                    Ok(()) => {}
                }
            }
            self.after = behind;
            if self.after.is_some() {
                continue;
            }
            self.told = !std::mem::take(&mut self.failed);
            if !self.told {
                self.wait(now, random::random());
            }
            break;
        }
        first.map_or(Ok(self.told), Err)
    }
}

fn in_progress(why: &str) -> Said<'_> {
    ("Terminating", true, "InstanceDeletionInProgress", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_hold_is_counted_again_at_intervals_that_grow_up_to_a_bound() {
        let mut ending = Ending::default();
        let now = Timestamp::UNIX_EPOCH;
        let pauses: Vec<i64> = (0..8)
            .map(|_| {
                ending.wait(now, 0.0);
                ending.again.unwrap().as_second()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
    }
}
