//! Following a collection: one JSON object a line, as it happens.
//!
//! The stream ends when its time is up, after an `ERROR` line, or with the connection. A client that
//! reads slowly holds a piece of it here: the registry drops it when it falls behind, and it is told
//! `Expired`. An object that is shown as it is kept is never read, and what has to be is read in turn. The line of a change
//! is written once for all watches that show it in the same form.

use crate::answer::{self, Body, PIECE};
use crate::budget::{self, Share};
use crate::busy::unread;
use crate::call::ResourceCall;
use crate::gateway::Gateway;
use crate::negotiate::View;
use crate::turns::Turns;
use crate::{options, shape};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use hyper::Response;
use impresario_api::resource::Resource;
use impresario_api::status::Status;
use impresario_api::table::IncludeObject;
use impresario_objects::{Form, Item, ItemEvent, ItemWatch, spliced};
use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// How often a quiet watch tells how far it has come.
const BOOKMARK_EVERY: Duration = Duration::from_mins(1);
/// After so many bytes of objects no more of them are put into one piece: others have their turn.
const TURN_BYTES: usize = 256 * 1024;

/// The lines of a watch, as they are sent.
struct Lines {
    source: Source,
    turns: Turns,
    tick: Interval,
    end: Instant,
    over: bool,
    /// What is made and not given out.
    ready: VecDeque<Bytes>,
    /// A share for what is made and large, of the answers that wait to be read.
    waiting: Share,
    /// The place among the watches that may be sent at a time.
    _place: Share,
}

/// The lines of a watch, as they are made.
struct Source {
    shape: Shape,
    watch: ItemWatch,
    bookmarks: bool,
    first: bool,
    /// How far the watch has come: nothing up to here is still to be told. Not known (0) amid the
    /// objects that were there at the start, which come in the order of their names.
    revision: u64,
    /// Whether those objects are all told.
    begun: bool,
}

/// How a watch shows objects.
#[derive(Debug, Clone, Copy)]
struct Shape {
    resource: &'static Resource,
    view: View,
    include: IncludeObject,
    /// Whether nothing was shown before.
    first: bool,
}

/// A line.
#[derive(Default)]
struct Line {
    pieces: Vec<Bytes>,
    /// Bytes that are held for it, and that nobody else counts.
    held: usize,
    /// Bytes that were looked at to make it.
    looked: usize,
    /// Whether nothing comes behind it.
    last: bool,
    /// Whether its object is shown in the bytes in which it is kept.
    is_kept: bool,
}

/// Follows a collection, or the one object that the path names.
pub async fn watch(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    // Each event shows one object, so that metadata alone is asked for as of one; some ask as of a list.
    let view = call.call.json_view(false).or_else(|_| call.call.json_view(true))?;
    let include = call.call.include()?;
    let mut options = options::watch(call.resource, &call.path.namespace, &call.call.query)?;
    if !call.path.name.is_empty() {
        options.query.filter.name = Some(call.path.name.clone());
    }
    let place = gateway.stream(&call.call)?;
    let from = options.query.version.unwrap_or(0);
    let initial = options.query.initial_events;
    let begun = initial == Some(false) || (from > 0 && initial != Some(true));
    let ahead = Box::new(gateway.unread(&call.call));
    let turns = gateway.turns(&call.call);
    let watch = gateway.objects().watch_items(call.resource, options.query, ahead);
    let watch = match turns.by_turns(watch).await {
        Ok(watch) => watch,
        // A state that is no longer kept is told inside the stream, where clients look for it.
        Err(status) if status.code() == 410 => {
            let line = Bytes::from(text("ERROR", &status.to_value()));
            return Ok(answer::stream("application/json", stream::iter([Ok(line)])));
        }
        Err(status) => return Err(status),
    };
    let timeout = options
        .timeout
        .unwrap_or_else(|| Duration::from_secs(rand::rng().random_range(1_800..3_600)));
    let mut tick = tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lines = Lines {
        source: Source {
            shape: Shape { resource: call.resource, view, include, first: true },
            watch,
            bookmarks: options.bookmarks,
            first: true,
            revision: if begun { from } else { 0 },
            begun,
        },
        turns,
        tick,
        end: Instant::now() + timeout,
        over: false,
        ready: VecDeque::new(),
        waiting: gateway.waiting(&call.call),
        _place: place,
    };
    let pieces = stream::unfold(lines, |mut lines| async move {
        let piece = lines.piece().await?;
        Some((Ok(piece), lines))
    });
    let pieces = pieces.take_until(Box::pin(gateway.distrusts(&call.call)));
    Ok(answer::stream("application/json", pieces))
}

fn text(kind: &str, object: &Value) -> Vec<u8> {
    let mut line =
        serde_json::to_vec(&json!({ "type": kind, "object": object })).unwrap_or_default();
    line.push(b'\n');
    line
}

impl Line {
    /// A line that was made here.
    fn of(kind: &str, object: &Value) -> Self {
        let text = text(kind, object);
        Self { held: text.len(), pieces: vec![text.into()], ..Self::default() }
    }

    /// A line around pieces of what is kept.
    fn around(kind: &str, object: Vec<Bytes>) -> Self {
        let mut pieces = vec![format!("{{\"type\":\"{kind}\",\"object\":").into()];
        pieces.extend(object);
        pieces.push(Bytes::from_static(b"}\n"));
        let held = pieces.iter().map(Bytes::len).sum();
        Self { held, pieces, is_kept: true, ..Self::default() }
    }
}

impl Shape {
    /// What tells the lines of a revision apart that show the same object.
    fn form(self, kind: &str, revision: u64) -> Form {
        let kind = match kind {
            "ADDED" => 0,
            "MODIFIED" => 1,
            _ => 2,
        };
        let (view, version) = match self.view {
            View::Whole => return (revision, kind, 0),
            View::Metadata(version) => (1, version),
            View::Table(version) => (2, version),
        };
        let version = u32::from(version == "v1");
        if matches!(self.view, View::Metadata(_)) {
            return (revision, kind | (view << 2) | (version << 4), 0);
        }
        let include = match self.include {
            IncludeObject::None => 0,
            IncludeObject::Metadata => 1,
            IncludeObject::Object => 2,
        };
        let form =
            kind | (view << 2) | (version << 4) | (include << 5) | (u32::from(self.first) << 7);
        // Rows tell ages.
        (revision, form, Timestamp::now().as_second())
    }

    /// The line that shows an object; `None` where it cannot be read.
    fn line(self, kind: &str, item: Item) -> Option<Line> {
        let kept = if self.view == View::Whole { spliced::whole(&item.entry) } else { None };
        if let Some(pieces) = kept {
            return Some(Line::around(kind, pieces));
        }
        let object = item.object()?;
        let shown = shape::event(self.resource, object, self.view, self.include, self.first);
        Some(Line::of(kind, &shown))
    }
}

impl Lines {
    /// The next bytes, at most a piece of them: lines that are ready together are sent together.
    async fn piece(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() {
            self.waiting.shrink(0);
            self.more().await?;
        }
        if self.ready.len() == 1 && self.ready.front().is_some_and(|line| line.len() <= PIECE) {
            return self.ready.pop_front(); // as it is shared
        }
        let mut piece = Vec::new();
        answer::fill(&mut piece, &mut self.ready);
        Some(piece.into())
    }

    /// Waits for a line, and takes those that are there behind it.
    async fn more(&mut self) -> Option<()> {
        let line = self.next().await?;
        let (mut length, mut held, mut looked) = (0, 0, 0);
        let mut next = Some(line);
        while let Some(line) = next {
            length += line.pieces.iter().map(Bytes::len).sum::<usize>();
            (held, looked) = (held + line.held, looked + line.looked);
            self.ready.extend(line.pieces);
            let goes_on = length < PIECE && looked < TURN_BYTES;
            next = if goes_on { self.next().now_or_never().flatten() } else { None };
        }
        if held > PIECE + budget::SMALL
            && let Err(over) = self.waiting.grow(held)
        {
            self.over = true;
            self.ready = Line::of("ERROR", &unread(over).to_value()).pieces.into();
        }
        Some(())
    }

    async fn next(&mut self) -> Option<Line> {
        while !self.over {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.end) => {
                    self.over = true;
                    return self.source.told();
                }
                line = self.turns.by_turns(self.source.line()) => {
                    self.over = line.as_ref().is_none_or(|line| line.last);
                    return line;
                }
                _ = self.tick.tick() => {}
            }
            if let Some(line) = self.source.told() {
                return Some(line);
            }
        }
        None
    }
}

impl Source {
    /// The next line; `None` at the end.
    async fn line(&mut self) -> Option<Line> {
        loop {
            let event = match self.watch.next().await? {
                Ok(event) => event,
                Err(status) => {
                    return Some(Line { last: true, ..Line::of("ERROR", &status.to_value()) });
                }
            };
            let line = match event {
                ItemEvent::Added(item) => self.event("ADDED", item),
                ItemEvent::Modified(item) => self.event("MODIFIED", item),
                ItemEvent::Deleted(item) => self.event("DELETED", item),
                ItemEvent::Bookmark { revision, initial_end } => {
                    self.begun = true;
                    self.revision = self.revision.max(revision);
                    (initial_end && self.bookmarks).then(|| self.bookmark(true))
                }
            };
            if line.is_some() {
                return line;
            }
        }
    }

    /// How the object of an event is shown; `None` where it cannot be read.
    fn event(&mut self, kind: &str, item: Item) -> Option<Line> {
        let (revision, looked) = (item.entry.mod_revision, item.entry.value.len());
        let shape = Shape { first: self.first, ..self.shape };
        let mut line = if self.begun {
            let line = item.line(shape.form(kind, revision), |item| {
                Some(shape.line(kind, item)?.pieces.concat().into())
            })?;
            Line { held: line.len(), pieces: vec![line], ..Line::default() }
        } else {
            let mut line = shape.line(kind, item)?;
            if line.is_kept {
                line.held = 0; // the listing counts it
            }
            line
        };
        self.first = false;
        if self.begun {
            self.revision = self.revision.max(revision);
        }
        line.looked = looked;
        Some(line)
    }

    /// How far it has come, where that is wanted and known.
    fn told(&self) -> Option<Line> {
        (self.bookmarks && self.revision > 0).then(|| self.bookmark(false))
    }

    fn bookmark(&self, initial_end: bool) -> Line {
        let bookmark = {
            let Shape { resource, view, .. } = self.shape;
            shape::bookmark(resource, self.revision, initial_end, view)
        };
        Line::of("BOOKMARK", &bookmark)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use impresario_api::catalog::resources;
    use impresario_objects::{Reader, WatchQuery};
    use impresario_registry::MemoryRegistry;
    use impresario_registry_api::{Key, Operation, Registry as _, Transaction};
    use std::sync::Arc;

    fn shape(resource: &'static Resource, view: View) -> Shape {
        Shape { resource, view, include: IncludeObject::Metadata, first: true }
    }

    async fn write(registry: &MemoryRegistry, operation: Operation) {
        let written = Transaction { operations: vec![operation], ..Transaction::default() };
        registry.transact(written).await.unwrap();
    }

    #[tokio::test]
    async fn an_object_that_is_shown_as_it_is_kept_is_never_read() {
        let resource = resources().iter().find(|one| one.plural == "configmaps").unwrap();
        let registry = MemoryRegistry::new();
        let key = Key::new("configmaps", "default", "a");
        // What is read and written again has no such number.
        let value = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"n":1.50e0}"#;
        let put = || Operation::Put { key: key.clone(), value: value.into() };
        write(&registry, put()).await;
        let reader = Reader::new(Arc::new(registry.clone()));
        let watch = reader.watch_items(resource, WatchQuery::default(), None).await.unwrap();
        let mut source = Source {
            shape: shape(resource, View::Whole),
            watch,
            bookmarks: false,
            first: true,
            revision: 0,
            begun: false,
        };
        let mut shown = Vec::new();
        for (number, kind) in ["ADDED", "MODIFIED", "DELETED"].into_iter().enumerate() {
            let line = source.line().await.unwrap();
            assert_eq!(line.held > 0, number > 0, "what was there is held by the listing");
            let text = line.pieces.concat();
            assert!(text.windows(6).any(|some| some == b"1.50e0"), "{kind}");
            let told: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(
                (told["type"].as_str(), &told["object"]["kind"]),
                (Some(kind), &json!("ConfigMap"))
            );
            shown.push(told["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
            let next = if number == 0 { put() } else { Operation::Delete { key: key.clone() } };
            write(&registry, next).await;
        }
        shown.dedup();
        assert_eq!(shown.len(), 3, "each has its own revision");
        assert_eq!(source.revision.to_string(), shown[2]);
    }

    #[tokio::test]
    async fn many_watches_of_a_change_share_its_line_and_none_gets_that_of_another_form() {
        let resource = resources().iter().find(|one| one.plural == "configmaps").unwrap();
        let registry = MemoryRegistry::new();
        let reader = Reader::new(Arc::new(registry.clone())).shared();
        let views =
            [View::Whole, View::Table("v1"), View::Metadata("v1"), View::Metadata("v1beta1")];
        let mut sources = Vec::new();
        for view in views.into_iter().chain(views) {
            let watch = reader.watch_items(resource, WatchQuery::default(), None).await.unwrap();
            let shape = shape(resource, view);
            sources.push(Source {
                shape,
                watch,
                bookmarks: false,
                first: true,
                revision: 0,
                begun: false,
            });
        }
        let key = Key::new("configmaps", "default", "a");
        let value =
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"x":"y"}}"#;
        let put = || Operation::Put { key: key.clone(), value: value.into() };
        for operation in [put(), put(), Operation::Delete { key: key.clone() }] {
            write(&registry, operation).await;
        }
        let mut shown: Vec<Vec<Bytes>> = Vec::new();
        for source in &mut sources {
            let mut lines = Vec::new();
            for _ in 0..3 {
                let line = source.line().await.unwrap();
                lines.push(line.pieces.concat().into());
                if source.shape.view == View::Whole {
                    assert_eq!(line.pieces.len(), 1);
                }
            }
            shown.push(lines);
        }
        let (ones, others) = shown.split_at(views.len());
        for (index, kind) in ["ADDED", "MODIFIED", "DELETED"].into_iter().enumerate() {
            let told: Vec<Value> =
                ones.iter().map(|lines| serde_json::from_slice(&lines[index]).unwrap()).collect();
            assert!(told.iter().all(|told| told["type"] == kind), "{told:?}");
            let revision = (index + 1).to_string();
            assert_eq!(told[0]["object"]["metadata"]["resourceVersion"], *revision);
            assert_eq!(told[0]["object"]["data"]["x"], "y");
            assert_eq!(told[1]["object"]["kind"], "Table");
            assert_eq!(
                told[1]["object"]["columnDefinitions"].is_null(),
                index > 0,
                "only the first"
            );
            assert_eq!(told[2]["object"]["apiVersion"], "meta.k8s.io/v1");
            assert_eq!(told[3]["object"]["apiVersion"], "meta.k8s.io/v1beta1");
            assert_eq!(told[3]["object"]["metadata"]["resourceVersion"], *revision);
            for view in [0, 2, 3] {
                assert_eq!(ones[view][index], others[view][index]);
            }
        }
    }
}
