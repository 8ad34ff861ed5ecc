//! Lists: pages in key order, now or at a revision that the ring still reaches.

use super::{Record, Store, ring::Touched};
use crate::{
    error::ReadError,
    key::{Entry, Key, Revision},
    query::{ListRequest, Page},
};
use std::{cmp::Ordering, ops::Bound};

/// Neighbours of a list, not filtered by value yet.
#[derive(Debug)]
pub(crate) struct Part {
    /// The state that was listed.
    pub(crate) revision: Revision,
    pub(crate) records: Vec<(Key, Record)>,
    /// Behind which namespace and name the next part begins; none at the end.
    pub(crate) next: Option<(String, String)>,
}

/// How many more of the keys that a request means there are, not filtered by value.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) count: usize,
    /// As in [`Part`].
    pub(crate) next: Option<(String, String)>,
}

/// Puts a page together from parts.
#[derive(Debug)]
pub(crate) struct Paging<'r> {
    request: &'r ListRequest,
    entries: Vec<Entry>,
    bytes: usize,
    most_bytes: usize,
    remaining: usize,
}

impl<'r> Paging<'r> {
    /// A page of at most so many bytes, one entry at least.
    pub(crate) fn new(request: &'r ListRequest, most_bytes: usize) -> Self {
        Self { request, entries: Vec::new(), bytes: 0, most_bytes, remaining: 0 }
    }

    pub(crate) fn take(&mut self, records: Vec<(Key, Record)>) {
        let limit = self.request.limit.unwrap_or(usize::MAX);
        for (key, record) in records {
            if self.is_done() {
                return;
            }
            if !self.request.select.accepts(&record.value) {
                continue;
            }
            self.bytes += key.bytes() + record.value.len();
            let fits = self.entries.is_empty() || self.bytes <= self.most_bytes;
            // What comes behind an entry that did not fit does not fit either: a page has no gaps.
            if self.remaining == 0 && self.entries.len() < limit && fits {
                self.entries.push(record.entry(key));
            } else {
                self.remaining += 1;
            }
        }
    }

    /// Whether nothing of what comes behind is looked for any more: to count it, each value would have to be read.
    pub(crate) fn is_done(&self) -> bool {
        self.remaining > 0 && self.request.select.field.is_some()
    }

    /// Whether what comes behind needs to be counted only.
    pub(crate) fn only_counts(&self) -> bool {
        self.remaining > 0 && !self.is_done()
    }

    /// So many more match behind the page.
    pub(crate) fn add(&mut self, count: usize) {
        self.remaining += count;
    }

    /// Whether an object is known that did not fit.
    pub(crate) fn has_more(&self) -> bool {
        self.remaining > 0
    }

    pub(crate) fn page(self, revision: Revision) -> Page {
        Page { entries: self.entries, revision, remaining: self.remaining }
    }
}

impl Store {
    /// The objects that a request means. Consistency is the caller's affair: this is the state at hand.
    pub fn list(&self, request: &ListRequest) -> Result<Page, ReadError> {
        let part = self.part(request, usize::MAX, usize::MAX)?;
        let mut paging = Paging::new(request, usize::MAX);
        paging.take(part.records);
        Ok(paging.page(part.revision))
    }

    /// The first of the objects that a request may mean, by their keys; at most so many keys are looked at, and none
    /// after that which makes it more than so many bytes.
    pub(crate) fn part(
        &self,
        request: &ListRequest,
        most: usize,
        most_bytes: usize,
    ) -> Result<Part, ReadError> {
        let revision = self.listed(request)?;
        let mut records = Vec::new();
        let mut bytes = 0;
        let next = self.walk(request, revision, most, |key, record| {
            bytes += key.bytes() + record.value.len();
            records.push((key.clone(), record.clone()));
            bytes <= most_bytes
        });
        Ok(Part { revision, records, next })
    }

    /// Counts what a request may mean by its key; at most so many keys are looked at.
    pub(crate) fn count(&self, request: &ListRequest, most: usize) -> Result<Counted, ReadError> {
        let revision = self.listed(request)?;
        let mut count = 0;
        let next = self.walk(request, revision, most, |_, _| {
            count += 1;
            true
        });
        Ok(Counted { count, next })
    }

    /// The revision that a list is of, if it is kept.
    fn listed(&self, request: &ListRequest) -> Result<Revision, ReadError> {
        let revision = request.at.unwrap_or(self.revision);
        if revision > self.revision {
            return Err(ReadError::Future { requested: revision, current: self.revision });
        }
        if revision < self.oldest() {
            return Err(ReadError::Gone { requested: revision, oldest: self.oldest() });
        }
        Ok(revision)
    }

    /// Looks at no more than so many keys, as long as `see` wants more, and says behind which the next look begins.
    fn walk(
        &self,
        request: &ListRequest,
        revision: Revision,
        most: usize,
        mut see: impl FnMut(&Key, &Record) -> bool,
    ) -> Option<(String, String)> {
        let within = |key: &Key| {
            let namespace = request.select.namespace.as_ref();
            key.resource == request.select.resource
                && namespace.is_none_or(|namespace| *namespace == key.namespace)
        };
        let range = bounds(request);
        let past = (revision != self.revision).then(|| self.ring.touched(range.clone(), revision));
        let past = past.into_iter().flatten().take_while(|(key, _)| within(key));
        let keys = merged(self.objects.range(range), past);
        for (looked, (key, record)) in (1..).zip(keys) {
            if !within(key) {
                break; // the keys of a resource, and of a namespace in it, are neighbours
            }
            let is_enough = request.select.covers(key) && !see(key, record);
            if is_enough || looked == most {
                return Some((key.namespace.clone(), key.name.clone()));
            }
        }
        None
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

/// The present with the past laid over it, in key order. No further into either than what is taken.
fn merged<'a>(
    present: impl Iterator<Item = (&'a Key, &'a Record)>,
    past: impl Iterator<Item = Touched<'a>>,
) -> impl Iterator<Item = (&'a Key, &'a Record)> {
    let mut present = present.peekable();
    let mut past = past.peekable();
    std::iter::from_fn(move || {
        loop {
            let order = match (present.peek(), past.peek()) {
                (Some((now, _)), Some((then, _))) => then.cmp(now),
                (None, Some(_)) => Ordering::Less,
                (_, None) => Ordering::Greater,
            };
            match order {
                Ordering::Greater => return present.next(),
                // It is not there now.
                Ordering::Less => {
                    if let (key, Some(Some(record))) = past.next()? {
                        return Some((key, record));
                    }
                }
                Ordering::Equal => {
                    let (now, (_, was)) = (present.next()?, past.next()?);
                    match was {
                        None => return Some(now),
                        Some(Some(record)) => return Some((now.0, record)),
                        Some(None) => {}
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_part_looks_at_no_more_of_the_past_than_lies_beside_it() {
        let record = Record { value: "{}".into(), create_revision: 1, mod_revision: 1 };
        let keys: Vec<Key> = (0..1000).map(|n| Key::new("pods", "d", format!("{n:04}"))).collect();
        let looked = Cell::new(0);
        let past = keys.iter().map(|key| {
            looked.set(looked.get() + 1);
            (key, None)
        });
        let present = keys.iter().map(|key| (key, &record));
        assert_eq!(merged(present, past).take(10).count(), 10);
        assert!(looked.get() <= 11, "{} were looked at", looked.get());
    }
}
