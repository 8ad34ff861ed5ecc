//! Lists: pages in key order, now or at a revision that the ring still reaches.

use super::{Record, Store};
use crate::{
    error::ReadError,
    key::{Key, Revision},
    query::{ListRequest, Page},
};
use std::{collections::BTreeMap, ops::Bound};

impl Store {
    /// The objects that a request means. Consistency is the caller's affair: this is the state at hand.
    pub fn list(&self, request: &ListRequest) -> Result<Page, ReadError> {
        let revision = request.at.unwrap_or(self.revision);
        if revision > self.revision {
            return Err(ReadError::Future { requested: revision, current: self.revision });
        }
        if revision < self.oldest() {
            return Err(ReadError::Gone { requested: revision, oldest: self.oldest() });
        }
        let range = bounds(request);
        let past = self.past(request, revision);
        let limit = request.limit.unwrap_or(usize::MAX);
        let (mut entries, mut remaining) = (Vec::new(), 0);
        for (key, record) in merged(self.objects.range(range), past) {
            if key.resource != request.select.resource
                || request
                    .select
                    .namespace
                    .as_ref()
                    .is_some_and(|namespace| *namespace != key.namespace)
            {
                break; // the keys of a resource, and of a namespace in it, are neighbours
            }
            if !request.select.covers(key) || !request.select.accepts(&record.value) {
                continue;
            }
            if entries.len() < limit {
                entries.push(record.entry(key.clone()));
            } else {
                remaining += 1;
            }
        }
        Ok(Page { entries, revision, remaining })
    }

    /// What the keys in range that changed after `revision` were then; `None` for what did not exist.
    fn past(&self, request: &ListRequest, revision: Revision) -> BTreeMap<&Key, Option<&Record>> {
        let mut past = BTreeMap::new();
        if revision == self.revision {
            return past;
        }
        let range = bounds(request);
        for batch in self.ring.after(revision) {
            for change in batch.1.iter().filter(|change| request.select.covers(&change.key)) {
                if std::ops::RangeBounds::contains(&range, &change.key) {
                    // The first change after the revision knows what was there at it.
                    past.entry(&change.key).or_insert(change.before.as_ref());
                }
            }
        }
        past
    }
}

fn bounds(request: &ListRequest) -> (Bound<Key>, Bound<Key>) {
    let namespace = request.select.namespace.clone().unwrap_or_default();
    let first = Key::new(request.select.resource.clone(), namespace, "");
    let start = match &request.after {
        Some((namespace, name)) => {
            let after = Key::new(request.select.resource.clone(), namespace.clone(), name.clone());
            if after >= first { Bound::Excluded(after) } else { Bound::Included(first) }
        }
        None => Bound::Included(first),
    };
    (start, Bound::Unbounded)
}

/// The present with the past laid over it, in key order.
fn merged<'a>(
    present: impl Iterator<Item = (&'a Key, &'a Record)> + 'a,
    past: BTreeMap<&'a Key, Option<&'a Record>>,
) -> impl Iterator<Item = (&'a Key, &'a Record)> + 'a {
    let mut present = present.peekable();
    let mut past = past.into_iter().peekable();
    std::iter::from_fn(move || {
        loop {
            let from_past = match (present.peek(), past.peek()) {
                (Some((now, _)), Some((then, _))) => then <= now,
                (None, Some(_)) => true,
                _ => false,
            };
            if !from_past {
                return present.next();
            }
            let (key, record) = past.next()?;
            present.next_if(|(now, _)| *now == key);
            if let Some(record) = record {
                return Some((key, record));
            }
        }
    })
}
