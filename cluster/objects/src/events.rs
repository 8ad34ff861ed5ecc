//! Events: what an actor has to say about an object, as people read it with `kubectl describe`.
//!
//! A [`Recorder`] never makes its actor wait: what is recorded goes into a bounded queue, is dropped
//! with a count when that is full, and is written by one task that ends with the last recorder. The
//! same thing said again raises the count of the event that is there; who says too much about one
//! object is cut short. A lost event does no harm: nothing acts on events.

use crate::Objects;
use impresario_api::admission::Door;
use impresario_api::catalog::find;
use impresario_api::resource::Row;
use impresario_api::status::{Reason, Status};
use impresario_client::objects::WriteOptions;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Events that wait to be written.
const QUEUE: usize = 512;
/// Different events that are remembered for counting.
const REMEMBERED: usize = 2_048;
/// Events about one object in a row before it is cut short, and how fast that allowance comes back.
const BURST: f64 = 25.0;
const PER_SECOND: f64 = 1.0 / 30.0;
/// How long one write may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Whether something is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Someone should look.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something that was said about an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Said {
    severity: Severity,
    reason: String,
    message: String,
    kind: String,
    api_version: String,
    namespace: String,
    name: String,
    uid: String,
    field: String,
}

/// Records events on behalf of one component.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<(Said, Timestamp)>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// A recorder for a component such as `default-scheduler`, on a host if that matters.
    ///
    /// Must be called inside a tokio runtime, on which it writes.
    pub fn start(objects: Objects, component: impl Into<String>, host: impl Into<String>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let writer = Writer {
            objects,
            component: component.into(),
            host: host.into(),
            known: Known::default(),
            allowances: HashMap::new(),
        };
        tokio::spawn(writer.run(waiting)); // ends when the last recorder is dropped
        Self { queue, dropped: Arc::new(AtomicU64::new(0)) }
    }

    /// Says something about an object.
    pub fn record(
        &self,
        about: &Value,
        severity: Severity,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.record_field(about, "", severity, reason, message);
    }

    /// Says something about a part of an object, such as `spec.containers{web}`.
    pub fn record_field(
        &self,
        about: &Value,
        field: &str,
        severity: Severity,
        reason: &str,
        message: impl Into<String>,
    ) {
        let text = |pointer: &str| {
            about.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let said = Said {
            severity,
            reason: reason.into(),
            message: clean(&message.into()),
            kind: text("/kind"),
            api_version: text("/apiVersion"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            uid: text("/metadata/uid"),
            field: field.into(),
        };
        if self.queue.try_send((said, Timestamp::now())).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(dropped, reason, "an event was dropped: too many wait to be written");
        }
    }

    /// How many events were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// At most the 1024 bytes that an event's message may have, and no control characters.
fn clean(message: &str) -> String {
    let mut text: String =
        message.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    while text.len() > 1_024 {
        text.pop();
    }
    text
}

/// Which events were written, by what they say: the oldest is forgotten first.
#[derive(Default)]
struct Known {
    names: HashMap<Said, (String, u64)>,
    order: VecDeque<Said>,
}

impl Known {
    fn remember(&mut self, said: Said, name: String) {
        if self.names.insert(said.clone(), (name, 1)).is_none() {
            self.order.push_back(said);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.names.remove(&oldest);
            }
        }
    }
}

/// A token bucket for each object.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let back = now.duration_since(self.at).as_secs_f64() * PER_SECOND;
        self.left = (self.left + back).min(BURST);
        self.at = now;
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

struct Writer {
    objects: Objects,
    component: String,
    host: String,
    known: Known,
    allowances: HashMap<String, Allowance>,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<(Said, Timestamp)>) {
        let Some(events) = find("", "v1", "events") else { return };
        while let Some((said, at)) = waiting.recv().await {
            if !self.allowed(&said.uid, Instant::now()) {
                continue;
            }
            match tokio::time::timeout(WRITE_DEADLINE, self.write(&events, said, at)).await {
                Ok(Ok(())) => {}
                Ok(Err(status)) => tracing::debug!(%status, "an event was not written"),
                Err(_) => tracing::debug!("an event was not written within {WRITE_DEADLINE:?}"),
            }
        }
    }

    fn allowed(&mut self, uid: &str, now: Instant) -> bool {
        if self.allowances.len() >= REMEMBERED {
            self.allowances
                .retain(|_, allowance| now.duration_since(allowance.at) < Duration::from_mins(10));
            if self.allowances.len() >= REMEMBERED {
                self.allowances.clear();
            }
        }
        let fresh = Allowance { left: BURST, at: now };
        self.allowances.entry(uid.to_owned()).or_insert(fresh).take(now)
    }

    async fn write(&mut self, events: &Row, said: Said, at: Timestamp) -> Result<(), Status> {
        let namespace = if said.namespace.is_empty() { "default" } else { said.namespace.as_str() };
        let options = WriteOptions { manager: self.component.clone(), ..WriteOptions::default() };
        if let Some((name, count)) = self.known.names.get_mut(&said) {
            *count += 1;
            let (count, moment) = (*count, seconds(at));
            let counted =
                self.objects.modify(events, Door::Main, namespace, name, &options, |old| {
                    let mut event = old.clone();
                    event["count"] = count.into();
                    event["lastTimestamp"] = moment.as_str().into();
                    Ok(event)
                });
            match counted.await {
                Err(status) if status.reason == Reason::NotFound => {} // expired or deleted: say it anew
                outcome => return outcome.map(|_| ()),
            }
        }
        let name = format!("{}.{:x}", said.name, at.as_nanosecond());
        let event = self.event(&said, &name, namespace, at);
        self.objects.create(events, namespace, event, &options).await?;
        self.known.remember(said, name);
        Ok(())
    }

    fn event(&self, said: &Said, name: &str, namespace: &str, at: Timestamp) -> Value {
        let mut involved = json!({
            "kind": said.kind, "apiVersion": said.api_version, "name": said.name, "uid": said.uid,
        });
        for (field, value) in [("namespace", &said.namespace), ("fieldPath", &said.field)] {
            if !value.is_empty() {
                involved[field] = value.as_str().into();
            }
        }
        let mut source = json!({ "component": self.component });
        if !self.host.is_empty() {
            source["host"] = self.host.as_str().into();
        }
        json!({
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": { "name": name, "namespace": namespace },
            "involvedObject": involved,
            "reason": said.reason,
            "message": said.message,
            "type": said.severity.as_str(),
            "count": 1,
            "firstTimestamp": seconds(at),
            "lastTimestamp": seconds(at),
            "source": source,
            "reportingComponent": self.component,
            "reportingInstance": self.host,
        })
    }
}

fn seconds(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn who_says_too_much_about_one_object_is_cut_short_and_may_speak_again_later() {
        let now = Instant::now();
        let mut allowance = Allowance { left: BURST, at: now };
        assert_eq!((0..100).filter(|_| allowance.take(now)).count(), 25);
        assert!(allowance.take(now + Duration::from_secs(31)));
        assert!(!allowance.take(now + Duration::from_secs(32)));
    }

    #[test]
    fn a_message_keeps_its_limit_and_carries_no_control_characters() {
        assert_eq!(clean("a\u{1b}[31mb\nc"), "a [31mb\nc");
        assert!(clean(&"é".repeat(2_000)).len() <= 1_024);
    }
}
