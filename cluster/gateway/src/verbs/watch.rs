//! Following a collection: one JSON object a line, as it happens.
//!
//! The stream ends when its time is up, after an `ERROR` line, or with the connection. A client that
//! reads slowly holds a piece of it here: the registry drops it when it falls behind, and it is told
//! `Expired`. An object that is shown as it is kept is never read, and what has to be is read in turn. The line of a change
//! is written once for all watches that show it in the same form.
//!
//! A revision may change many objects, each of which shows it. Amid them no bookmark tells it and no time is up; where
//! the connection breaks there, the next watch tells all of them once more ([`resumed`]).

mod resumed;

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
use impresario_api::managed::{told_of, told_of_bytes};
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_api::table::IncludeObject;
use impresario_objects::{Form, Item, ItemEvent, ItemWatch, ReadAhead, spliced};
use impresario_runtime::{clock, random};
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
    /// Whether its time is up; what is left of a revision still comes.
    ends: bool,
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
    /// Whether some of a revision is told, and perhaps not all.
    amid: bool,
}

/// What comes of one event.
enum Step {
    Line(Line),
    /// Nothing that is shown.
    Nothing,
}

/// How a watch shows objects.
#[derive(Debug, Clone)]
struct Shape {
    resource: Row,
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
    /// Bytes that were made, where its object is shown in those in which it is kept.
    made: Option<usize>,
}

/// Follows a collection, or the one object that the path names.
pub async fn watch(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    // Each event shows one object, so that metadata alone is asked for as of one; some ask as of a list.
    let view = call.call.json_view(false).or_else(|_| call.call.json_view(true))?;
    let include = call.call.include()?;
    let mut options = options::watch(&call.resource, &call.path.namespace, &call.call.query)?;
    if !call.path.name.is_empty() {
        options.query.filter.name = Some(call.path.name.clone());
    }
    let place = gateway.stream(&call.call, options.query.filter.bytes())?;
    let from = options.query.version.unwrap_or(0);
    let initial = options.query.initial_events;
    let begun = initial == Some(false) || (from > 0 && initial != Some(true));
    let ahead = || -> Box<dyn ReadAhead> { Box::new(gateway.unread(&call.call)) };
    let turns = gateway.turns(&call.call);
    let opened = async {
        let (objects, query) = (gateway.objects(), options.query);
        if begun && from > 0 {
            return resumed::open(objects, &call.resource, query, from, ahead).await;
        }
        objects.watch_items(&call.resource, query, ahead()).await
    };
    let watch = match turns.by_turns(opened).await {
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
        .unwrap_or_else(|| Duration::from_secs(random::rng().random_range(1_800..3_600)));
    let mut tick = tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lines = Lines {
        source: Source {
            shape: Shape { resource: Row::clone(&call.resource), view, include, first: true },
            watch,
            bookmarks: options.bookmarks,
            first: true,
            revision: if begun { from } else { 0 },
            begun,
            amid: false,
        },
        turns,
        tick,
        end: Instant::now() + timeout,
        ends: false,
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
    fn around(kind: &str, object: Vec<Bytes>, made: usize) -> Self {
        let mut pieces = vec![format!("{{\"type\":\"{kind}\",\"object\":").into()];
        pieces.extend(object);
        pieces.push(Bytes::from_static(b"}\n"));
        let held = pieces.iter().map(Bytes::len).sum();
        Self { held, pieces, made: Some(made), ..Self::default() }
    }
}

impl Shape {
    /// What tells the lines of a revision apart that show the same object.
    fn form(&self, kind: &str, revision: u64) -> Form {
        let kind = match kind {
            "ADDED" => 0,
            "MODIFIED" => 1,
            _ => 2,
        };
        // Who is told in another version is told other lines.
        let kind = kind | (u32::from(!self.resource.is_as_kept()) << 8);
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
        (revision, form, clock::timestamp().as_second())
    }

    /// The line that shows an object; `None` where it cannot be read.
    fn line(&self, kind: &str, item: Item) -> Option<Line> {
        let as_kept = self.view == View::Whole && self.resource.is_as_kept();
        if as_kept {
            let told = match item.looked_at() {
                Some(object) => told_of(&self.resource, object),
                None => told_of_bytes(&self.resource, &item.entry.value),
            };
            let made = told.as_ref().map_or(0, Vec::len);
            if let Some(pieces) = spliced::whole(&item.entry, told) {
                return Some(Line::around(kind, pieces, made));
            }
        }
        let object = item.object()?;
        let shown = shape::event(&self.resource, object, self.view, self.include, self.first);
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
            if self.ends && !self.source.amid {
                self.over = true;
                return self.source.told();
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.end), if !self.ends => self.ends = true,
                step = self.turns.by_turns(self.source.step()) => match step {
                    Some(Step::Line(line)) => {
                        self.over = line.last;
                        return Some(line);
                    }
                    Some(Step::Nothing) => {}
                    None => self.over = true,
                },
                _ = self.tick.tick() => {
                    if let Some(line) = self.source.told() {
                        return Some(line);
                    }
                }
            }
        }
        None
    }
}

impl Source {
    /// What comes of the next event; `None` at the end.
    async fn step(&mut self) -> Option<Step> {
        let line = match self.watch.next().await? {
            Ok(ItemEvent::Added(item)) => self.event("ADDED", item),
            Ok(ItemEvent::Modified(item)) => self.event("MODIFIED", item),
            Ok(ItemEvent::Deleted(item)) => self.event("DELETED", item),
            Ok(ItemEvent::Bookmark { revision, initial_end }) => {
                (self.begun, self.amid) = (true, false);
                self.revision = self.revision.max(revision);
                (initial_end && self.bookmarks).then(|| self.bookmark(true))
            }
            Err(status) => Some(Line { last: true, ..Line::of("ERROR", &status.to_value()) }),
        };
        Some(line.map_or(Step::Nothing, Step::Line))
    }

    /// How the object of an event is shown; `None` where it cannot be read.
    fn event(&mut self, kind: &str, item: Item) -> Option<Line> {
        let (revision, looked) = (item.entry.mod_revision, item.entry.value.len());
        self.shape.first = self.first;
        let shape = &self.shape;
        let mut line = if self.begun {
            let line = item.line(shape.form(kind, revision), |item| {
                Some(shape.line(kind, item)?.pieces.concat().into())
            })?;
            Line { held: line.len(), pieces: vec![line], ..Line::default() }
        } else {
            let mut line = shape.line(kind, item)?;
            if let Some(made) = line.made {
                line.held = made; // the rest the listing counts
            }
            line
        };
        self.first = false;
        self.amid = self.begun;
        line.looked = looked;
        Some(line)
    }

    /// How far it has come, where that is wanted and known: nowhere amid the objects of one revision.
    fn told(&self) -> Option<Line> {
        (self.bookmarks && self.revision > 0 && !self.amid).then(|| self.bookmark(false))
    }

    fn bookmark(&self, initial_end: bool) -> Line {
        let bookmark = {
            let Shape { resource, view, .. } = &self.shape;
            shape::bookmark(resource, self.revision, initial_end, *view)
        };
        Line::of("BOOKMARK", &bookmark)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
