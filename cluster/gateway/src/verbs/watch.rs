//! Following a collection: one JSON object a line, as it happens.
//!
//! The stream ends when its time is up, after an `ERROR` line, or with the connection. A client that
//! reads slowly holds a piece of it here: the registry drops it when it falls behind, and it is told
//! `Expired`.

use crate::answer::{self, Body, PIECE};
use crate::budget::{self, Share};
use crate::call::ResourceCall;
use crate::gateway::{Gateway, unread};
use crate::negotiate::View;
use crate::{options, shape};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use hyper::Response;
use impresario_api::resource::Resource;
use impresario_api::status::Status;
use impresario_api::table::IncludeObject;
use impresario_objects::{ObjectEvent, ObjectWatch};
use rand::Rng;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// How often a quiet watch tells how far it has come.
const BOOKMARK_EVERY: Duration = Duration::from_mins(1);

struct Lines {
    resource: &'static Resource,
    watch: ObjectWatch,
    view: View,
    include: IncludeObject,
    bookmarks: bool,
    first: bool,
    /// How far the watch has come: nothing up to here is still to be told. Not known (0) amid the
    /// objects that were there at the start, which come in the order of their names.
    revision: u64,
    /// Whether those objects are all told.
    begun: bool,
    tick: Interval,
    end: Instant,
    over: bool,
    /// Lines that are made and not given out.
    ready: Bytes,
    /// A share for a line that is large, of the answers that wait to be read.
    waiting: Share,
    /// The place among the watches that may be sent at a time.
    _place: Share,
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
    let begun = from > 0 && options.query.initial_events != Some(true);
    let unread = Box::new(gateway.unread(&call.call));
    let watch = match gateway.objects().watch_ahead(call.resource, options.query, unread).await {
        Ok(watch) => watch,
        // A state that is no longer kept is told inside the stream, where clients look for it.
        Err(status) if status.code() == 410 => {
            let line = Bytes::from(line("ERROR", &status.to_value()));
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
        resource: call.resource,
        watch,
        view,
        include,
        bookmarks: options.bookmarks,
        first: true,
        revision: if begun { from } else { 0 },
        begun,
        tick,
        end: Instant::now() + timeout,
        over: false,
        ready: Bytes::new(),
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

fn line(kind: &str, object: &Value) -> Vec<u8> {
    let mut line =
        serde_json::to_vec(&json!({ "type": kind, "object": object })).unwrap_or_default();
    line.push(b'\n');
    line
}

impl Lines {
    /// The next bytes, at most a piece of them: lines that are ready together are sent together.
    async fn piece(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() {
            self.waiting.shrink(0);
            let mut lines = self.next().await?;
            while lines.len() < PIECE
                && let Some(Some(line)) = self.next().now_or_never()
            {
                lines.extend_from_slice(&line);
            }
            if lines.len() > PIECE + budget::SMALL
                && let Err(over) = self.waiting.grow(lines.len())
            {
                self.over = true;
                lines = line("ERROR", &unread(over).to_value());
            }
            self.ready = lines.into();
        }
        Some(self.ready.split_to(self.ready.len().min(PIECE)))
    }

    async fn next(&mut self) -> Option<Vec<u8>> {
        while !self.over {
            let event = tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.end) => {
                    self.over = true;
                    return (self.bookmarks && self.revision > 0).then(|| self.bookmark(false));
                }
                event = self.watch.next() => event,
                _ = self.tick.tick() => {
                    if self.bookmarks && self.revision > 0 {
                        return Some(self.bookmark(false));
                    }
                    continue;
                }
            };
            match event {
                None => self.over = true,
                Some(Err(status)) => {
                    self.over = true;
                    return Some(line("ERROR", &status.to_value()));
                }
                Some(Ok(ObjectEvent::Added(object))) => return Some(self.event("ADDED", object)),
                Some(Ok(ObjectEvent::Modified(object))) => {
                    return Some(self.event("MODIFIED", object));
                }
                Some(Ok(ObjectEvent::Deleted(object))) => {
                    return Some(self.event("DELETED", object));
                }
                Some(Ok(ObjectEvent::Bookmark { revision, initial_end })) => {
                    self.begun = true;
                    self.revision = self.revision.max(revision);
                    if initial_end && self.bookmarks {
                        return Some(self.bookmark(true));
                    }
                }
            }
        }
        None
    }

    fn event(&mut self, kind: &str, object: Value) -> Vec<u8> {
        let revision = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let revision = revision.filter(|_| self.begun).and_then(|text| text.parse().ok());
        if let Some(revision) = revision {
            self.revision = self.revision.max(revision);
        }
        let shown = shape::event(self.resource, object, self.view, self.include, self.first);
        self.first = false;
        line(kind, &shown)
    }

    fn bookmark(&self, initial_end: bool) -> Vec<u8> {
        line("BOOKMARK", &shape::bookmark(self.resource, self.revision, initial_end, self.view))
    }
}
