//! Lists that are read as they are taken: a part at a time, all of one revision.
//!
//! What a listing holds is a part of its entries, whose bytes are the registry's own; who takes it slowly holds no
//! more. How far it reads ahead of who takes it is asked of a [`ReadAhead`]: what has been read is safe from
//! the registry's forgetting of the past, which ends a listing with `Expired`.

use super::list::{Token, VersionMatch};
use super::refuse::read_refused;
use super::removed::still_served;
use super::states::{Form, State};
use super::stored::{object_at, set_revision};
use super::{Filter, ListQuery, Reader};
use bytes::Bytes;
use impresario_api::resource::Row;
use impresario_api::status::{Reason, Status};
use impresario_registry_api::{
    Consistency, Entry, ListRequest, Page, ReadError, RegistryHandle, Revision,
};
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Bytes of the entries that are read at a time.
const PART_BYTES: usize = 256 * 1024;
/// What an entry costs beside its key and its object, about.
const ENTRY_BYTES: usize = 256;
/// One in so many bytes of what is read ahead is taken to be replaced before its reader has it: the bytes are the
/// registry's own, and cost nothing while they are there anyway.
const REPLACED: usize = 16;
/// For so long. Who reads for longer is counted all of it: by then every object may have been replaced.
const FRESH: Duration = Duration::from_mins(1);
/// Bytes of a page: what would be more of it is left to the next one.
const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Objects of a page.
const PAGE_OBJECTS: usize = 5_000;
/// How often a list is begun anew whose past is forgotten while it is looked through.
const ATTEMPTS: u32 = 3;
/// After so many bytes of entries that were looked at, others have their turn.
pub(super) const TURN_BYTES: usize = 256 * 1024;

/// Decides how much a listing may hold of what is not taken yet.
pub trait ReadAhead: Send {
    /// Whether it may hold so many bytes in all from now on, which it needs to go on. Nothing is read ahead then.
    fn hold(&mut self, bytes: usize) -> bool;

    /// Whether it may hold so many bytes in all, which have only been read ahead: what it is likely to cost, not what
    /// is read, since the registry has the same bytes.
    fn hold_ahead(&mut self, bytes: usize) -> bool;
}

/// A list that is being read. All of it is of one revision; after an error there is nothing more.
pub struct Listing {
    registry: RegistryHandle,
    resource: Row,
    filter: Filter,
    /// Whether what is ready is still to be looked at: whether it matches.
    sifts: bool,
    ready: VecDeque<Entry>,
    /// Bytes that `ready` held when it was filled.
    held: usize,
    /// Bytes that it costs, about.
    costs: usize,
    /// How all of it is asked for; none of a page.
    all: Option<ListRequest>,
    begun: Instant,
    /// Whether what is ready is counted as it weighs.
    is_weighed: bool,
    /// What is still to be read.
    rest: Option<ListRequest>,
    revision: Revision,
    token: Option<String>,
    remaining: Option<usize>,
    ahead: Option<Box<dyn ReadAhead>>,
    /// Bytes of what was looked at since others had their turn.
    looked: usize,
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("resource", &self.resource.plural)
            .field("revision", &self.revision)
            .field("ready", &self.ready.len())
            .finish_non_exhaustive()
    }
}

/// One object of a listing.
#[derive(Debug)]
pub struct Item {
    /// As the registry keeps it.
    pub entry: Entry,
    /// As it was read, where it had to be looked at.
    object: Option<Value>,
    /// What others have made of the same bytes.
    state: Option<Arc<State>>,
}

impl Item {
    /// An entry whose object was read, or was not.
    pub(super) fn of(entry: Entry, object: Option<Value>) -> Self {
        Self { entry, object, state: None }
    }

    /// An entry of which others may have made something.
    pub(super) fn shared(entry: Entry, state: Arc<State>) -> Self {
        Self { entry, object: None, state: Some(state) }
    }

    /// The object with its resourceVersion; `None`, with a line in the log, for what cannot be read: all others
    /// are still there to be had.
    pub fn object(self) -> Option<Value> {
        let Some(state) = &self.state else {
            return self.object.or_else(|| read(&self.entry));
        };
        let mut object = logged(state.object(&self.entry).cloned())?;
        set_revision(&mut object, self.entry.mod_revision);
        Some(object)
    }

    /// The object, where somebody has read it already.
    pub fn looked_at(&self) -> Option<&Value> {
        match &self.state {
            Some(state) => state.looked_at(),
            None => self.object.as_ref(),
        }
    }

    /// What is written of it in this form, once for all to whom the same bytes are shown; `None` where it cannot be.
    /// A form stands for what is written, but for the object.
    pub fn line(self, form: Form, write: impl FnOnce(Self) -> Option<Bytes>) -> Option<Bytes> {
        match self.state.clone() {
            Some(state) => state.line(form, || write(self)),
            None => write(self),
        }
    }
}

fn read(entry: &Entry) -> Option<Value> {
    logged(object_at(entry, entry.mod_revision))
}

fn logged(read: Result<Value, Status>) -> Option<Value> {
    read.inspect_err(|status| tracing::error!(%status, "an object is left out")).ok()
}

fn weight(entry: &Entry) -> usize {
    entry.key.bytes() + entry.value.len() + ENTRY_BYTES
}

impl Reader {
    /// Begins to list objects. Whatever can be refused is refused here, but for a past that is forgotten later.
    pub async fn listing(
        &self,
        resource: &Row,
        query: &ListQuery,
        ahead: Option<Box<dyn ReadAhead>>,
    ) -> Result<Listing, Status> {
        still_served(resource)?;
        let request = request(resource, query)?;
        let mut listing = Listing {
            registry: self.registry().clone(),
            resource: Row::clone(resource),
            filter: query.filter.clone(),
            sifts: !query.filter.is_everything(),
            ready: VecDeque::new(),
            held: 0,
            costs: 0,
            all: Some(request.clone()).filter(|_| query.limit.is_none()),
            begun: Instant::now(),
            is_weighed: false,
            rest: Some(request),
            revision: 0,
            token: None,
            remaining: None,
            ahead,
            looked: 0,
        };
        match query.limit {
            Some(limit) if listing.sifts => listing.first_matches(limit.min(PAGE_OBJECTS)).await?,
            Some(limit) => listing.page(limit.min(PAGE_OBJECTS)).await?,
            // Who takes all of it at once must not meet a past that is forgotten between two parts.
            None if listing.ahead.is_none() => listing.whole().await?,
            None => listing.part().await?,
        }
        if let Some(wanted) = query.version.filter(|wanted| *wanted > listing.revision) {
            return Err(Status::revision_too_large(wanted, listing.revision));
        }
        if listing.holds(listing.held) {
            listing.read_ahead().await?;
            return Ok(listing);
        }
        Err(Status::too_many_requests(
            "the server is busy with answers that are not read yet: try again",
            1,
        ))
    }
}

/// Reads in a task of its own, which ends with who waits for it. The registry puts a few lists together at a time: who
/// takes what was read in turn with others must not keep its place there until the next turn.
async fn apart(
    read: impl Future<Output = Result<Page, ReadError>> + Send + 'static,
) -> Result<Page, Status> {
    let mut reading = JoinSet::new();
    reading.spawn(read);
    match reading.join_next().await {
        Some(Ok(page)) => page.map_err(|error| read_refused(&error)),
        Some(Err(error)) => {
            Err(Status::internal(format!("what was listed could not be read: {error}")))
        }
        None => Err(Status::internal("nothing reads what is listed")),
    }
}

fn request(resource: &Row, query: &ListQuery) -> Result<ListRequest, Status> {
    let token = query.token.as_deref().map(Token::decode).transpose()?;
    if token.is_some() && query.version.is_some_and(|version| version != 0) {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let exact = match (query.version, query.version_match) {
        (Some(version), Some(VersionMatch::Exact)) => Some(version),
        (Some(version), None) if version > 0 && query.limit.is_some() => Some(version),
        _ => None,
    };
    let any = query.version == Some(0) && exact.is_none();
    Ok(ListRequest {
        select: query.filter.selection(resource, query.namespace.as_deref()),
        after: token.as_ref().map(|token| (token.namespace.clone(), token.name.clone())),
        limit: None,
        at: token.as_ref().map_or(exact, |token| token.revision),
        consistency: if any { Consistency::Local } else { Consistency::Linearizable },
    })
}

impl Listing {
    /// The state that all of it is of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Asks for the next page; `None` where there is none.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// How many objects come after this page, where it can be told.
    pub fn remaining(&self) -> Option<usize> {
        self.remaining
    }

    /// Whether every object of the list is in it as it is kept: nothing has to be looked at.
    pub fn is_everything(&self) -> bool {
        self.filter.is_everything()
    }

    /// The next object.
    pub async fn next(&mut self) -> Result<Option<Item>, Status> {
        self.weigh();
        loop {
            let Some(entry) = self.ready.pop_front() else {
                if self.rest.is_none() {
                    self.holds(0);
                    return Ok(None);
                }
                self.refill().await?;
                continue;
            };
            if !self.sifts {
                return Ok(Some(Item::of(entry, None)));
            }
            self.breathe(&entry).await;
            let Some(object) = read(&entry) else { continue };
            if self.filter.matches(&self.resource, &object) {
                return Ok(Some(Item::of(entry, Some(object))));
            }
        }
    }

    fn holds(&mut self, bytes: usize) -> bool {
        let bytes = bytes + self.filter.bytes();
        self.ahead.as_mut().is_none_or(|ahead| ahead.hold(bytes))
    }

    fn is_fresh(&self) -> bool {
        self.begun.elapsed() < FRESH
    }

    /// What it costs to hold an entry that is read now.
    fn cost(&self, entry: &Entry) -> usize {
        let value = entry.value.len();
        entry.key.bytes() + ENTRY_BYTES + if self.is_fresh() { value / REPLACED } else { value }
    }

    /// Counts what is ready as it weighs, once it is not fresh any more. What there is no room for is left to be read
    /// again when its turn comes.
    fn weigh(&mut self) {
        if self.is_weighed || self.is_fresh() {
            return;
        }
        self.is_weighed = true;
        let Some(mut rest) = self.all.clone().filter(|_| self.ahead.is_some()) else { return };
        let all = self.ready.iter().map(weight).sum::<usize>();
        self.holds(PART_BYTES);
        let may = |ahead: &mut Box<dyn ReadAhead>, bytes| ahead.hold_ahead(bytes);
        let granted = [all, self.costs].into_iter();
        let granted = self
            .ahead
            .as_mut()
            .and_then(|ahead| granted.into_iter().find(|bytes| may(ahead, *bytes)));
        self.costs = granted.unwrap_or(0);
        let (room, mut taken) = (self.costs.max(PART_BYTES), 0);
        let fits = self.ready.iter().take_while(|entry| {
            taken += weight(entry);
            taken <= room
        });
        // One at least: it goes on.
        let kept = fits.count().max(1);
        if kept >= self.ready.len() {
            return;
        }
        self.ready.truncate(kept);
        rest.after =
            self.ready.back().map(|Entry { key, .. }| (key.namespace.clone(), key.name.clone()));
        rest.at = Some(self.revision);
        self.rest = Some(rest);
    }

    /// Lets others have their turn now and then.
    async fn breathe(&mut self, entry: &Entry) {
        self.looked += weight(entry);
        if self.looked >= TURN_BYTES {
            self.looked = 0;
            tokio::task::yield_now().await;
        }
    }

    /// Reads on, and ahead as far as it may.
    async fn refill(&mut self) -> Result<(), Status> {
        (self.held, self.costs) = (0, 0);
        // What it had at its beginning was not less.
        self.holds(PART_BYTES);
        self.part().await?;
        self.read_ahead().await
    }

    async fn read_ahead(&mut self) -> Result<(), Status> {
        while self.rest.is_some() {
            let wanted = self.costs + PART_BYTES;
            if !self.ahead.as_mut().is_some_and(|ahead| ahead.hold_ahead(wanted)) {
                break;
            }
            self.part().await?;
        }
        Ok(())
    }

    /// Reads one part more.
    async fn part(&mut self) -> Result<(), Status> {
        still_served(&self.resource)?;
        let Some(mut request) = self.rest.take() else { return Ok(()) };
        let (registry, asked) = (self.registry.clone(), request.clone());
        let page = apart(async move { registry.part(asked, PART_BYTES).await }).await?;
        if let Some(last) = page.entries.last().filter(|_| page.remaining > 0) {
            request.after = Some((last.key.namespace.clone(), last.key.name.clone()));
            request.at = Some(page.revision);
            self.rest = Some(request);
        }
        self.take(page);
        Ok(())
    }

    fn take(&mut self, page: Page) {
        self.revision = page.revision;
        self.held += page.entries.iter().map(weight).sum::<usize>();
        self.costs += page.entries.iter().map(|entry| self.cost(entry)).sum::<usize>();
        self.ready.extend(page.entries);
    }

    /// Reads all that is left, in one go.
    async fn whole(&mut self) -> Result<(), Status> {
        let Some(request) = self.rest.take() else { return Ok(()) };
        let registry = self.registry.clone();
        let page = apart(async move { registry.list(request).await }).await?;
        self.take(page);
        Ok(())
    }

    /// Reads a page of so many objects that match. A page that begins a list has no past that could be too old for its
    /// client to begin with: it is begun anew where objects change faster than they are looked through.
    async fn first_matches(&mut self, limit: usize) -> Result<(), Status> {
        let begin = self.rest.clone().filter(|request| request.at.is_none());
        for attempt in 1.. {
            match (self.sift(limit).await, &begin) {
                (Err(status), Some(begin))
                    if status.reason == Reason::Expired && attempt < ATTEMPTS =>
                {
                    (self.rest, self.held, self.costs) = (Some(begin.clone()), 0, 0);
                    self.ready.clear();
                    if attempt + 1 == ATTEMPTS {
                        self.whole().await?;
                    }
                }
                (sifted, _) => return sifted,
            }
        }
        Ok(())
    }

    /// Reads a page of at most so many objects, of which the registry knows how many come behind it.
    async fn page(&mut self, limit: usize) -> Result<(), Status> {
        let Some(mut request) = self.rest.take() else { return Ok(()) };
        request.limit = Some(limit);
        let registry = self.registry.clone();
        let page = apart(async move { registry.list(request).await }).await?;
        self.revision = page.revision;
        let count = page.entries.len();
        for entry in page.entries {
            let weight = weight(&entry);
            if !self.ready.is_empty() && self.held + weight > PAGE_BYTES {
                break;
            }
            self.held += weight;
            self.ready.push_back(entry);
        }
        let remaining = page.remaining + count - self.ready.len();
        if remaining > 0 {
            self.ends_before_more();
            self.remaining = Some(remaining);
        }
        Ok(())
    }

    /// Reads until so many objects match.
    async fn sift(&mut self, limit: usize) -> Result<(), Status> {
        let mut found = VecDeque::new();
        let mut bytes = 0;
        loop {
            while let Some(entry) = self.ready.pop_front() {
                self.breathe(&entry).await;
                let matches = |object| self.filter.matches(&self.resource, &object);
                if !read(&entry).is_some_and(matches) {
                    continue;
                }
                bytes += weight(&entry);
                found.push_back(entry);
                if found.len() < limit && bytes < PAGE_BYTES {
                    continue;
                }
                let more = self.rest.take().is_some() || !self.ready.is_empty();
                (self.ready, self.held, self.sifts) = (found, bytes, false);
                if more {
                    self.ends_before_more();
                }
                return Ok(());
            }
            if self.rest.is_none() {
                break;
            }
            self.part().await?;
        }
        (self.ready, self.held, self.sifts) = (found, bytes, false);
        Ok(())
    }

    /// The last object that is ready is the last one of this page.
    fn ends_before_more(&mut self) {
        self.token = self.ready.back().map(|last| {
            let Entry { key, .. } = last;
            let (namespace, name) = (key.namespace.clone(), key.name.clone());
            Token { revision: Some(self.revision), namespace, name }.encode()
        });
    }
}

#[cfg(test)]
mod tests;
