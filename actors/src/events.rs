//! Events: what happened to an object, in words for people.
//!
//! Recording never waits and never fails an actor: events go through a bounded queue to a task
//! that writes them; when the queue is full they are dropped and counted. The same event about
//! the same object is written once and counted up after that.

use impresario_registry::{Key, RegistryHandle, Transaction};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

/// Events that wait to be written.
const QUEUE: usize = 256;
/// Events that are remembered so that they can be counted up.
const REMEMBERED: usize = 512;

/// Writes events in the name of one component. Cheap to clone; the task that writes ends with the
/// last clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Happening>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Subject {
    key: Key,
    kind: String,
    uid: String,
    field: Option<String>,
    type_: &'static str,
    reason: String,
    message: String,
}

#[derive(Debug)]
struct Happening {
    subject: Subject,
    at: Timestamp,
}

impl Recorder {
    /// A recorder for `component` (`default-scheduler`, `kubelet`, ...) on the node `host`. Must be
    /// made within a tokio runtime.
    pub fn new(registry: RegistryHandle, component: &str, host: &str) -> Self {
        let (queue, happenings) = mpsc::channel(QUEUE);
        let writer = Writer {
            registry,
            component: component.to_owned(),
            host: host.to_owned(),
            written: HashMap::new(),
            order: VecDeque::new(),
        };
        tokio::spawn(writer.run(happenings));
        Self { queue, dropped: Arc::default() }
    }

    /// Something that is as it should be.
    pub fn normal(&self, key: &Key, kind: &str, uid: &str, reason: &str, message: &str) {
        self.record(key, kind, uid, None, "Normal", reason, message);
    }

    /// Something that someone should look at.
    pub fn warning(&self, key: &Key, kind: &str, uid: &str, reason: &str, message: &str) {
        self.record(key, kind, uid, None, "Warning", reason, message);
    }

    /// Something about a part of the object, such as `spec.containers{web}`.
    #[allow(clippy::too_many_arguments)]
    pub fn record(
        &self,
        key: &Key,
        kind: &str,
        uid: &str,
        field: Option<&str>,
        type_: &'static str,
        reason: &str,
        message: &str,
    ) {
        let subject = Subject {
            key: key.clone(),
            kind: kind.to_owned(),
            uid: uid.to_owned(),
            field: field.map(str::to_owned),
            type_,
            reason: reason.to_owned(),
            message: message.chars().filter(|c| !c.is_control() || *c == '\n').take(1024).collect(),
        };
        if self.queue.try_send(Happening { subject, at: Timestamp::now() }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events were dropped because the registry did not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

struct Writer {
    registry: RegistryHandle,
    component: String,
    host: String,
    written: HashMap<Subject, Key>,
    order: VecDeque<Subject>,
}

impl Writer {
    async fn run(mut self, mut happenings: mpsc::Receiver<Happening>) {
        while let Some(happening) = happenings.recv().await {
            if let Some(key) = self.written.get(&happening.subject) {
                let last = seconds(happening.at);
                let counted = crate::change::change(&self.registry, key, None, None, |event| {
                    event["count"] = (event["count"].as_i64().unwrap_or(1) + 1).into();
                    event["lastTimestamp"] = last.clone().into();
                })
                .await;
                if counted.is_ok() {
                    continue;
                }
                // It has expired meanwhile: written anew.
                self.written.remove(&happening.subject);
            }
            let (key, event) = self.event(&happening);
            match self.registry.transact(Transaction::create(key.clone(), event.to_string())).await {
                Ok(_) => self.remember(happening.subject, key),
                Err(error) => tracing::debug!(%error, "event not written"),
            }
        }
    }

    fn remember(&mut self, subject: Subject, key: Key) {
        self.order.push_back(subject.clone());
        self.written.insert(subject, key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.written.remove(&oldest);
        }
    }

    fn event(&self, happening: &Happening) -> (Key, Value) {
        let Happening { subject, at } = happening;
        // What has no namespace has its events in `default`.
        let namespace = if subject.key.namespace.is_empty() { "default" } else { &subject.key.namespace };
        let uid = uuid::Uuid::new_v4();
        let name = format!("{}.{:016x}", subject.key.name, uid.as_u128() >> 64);
        let time = seconds(*at);
        let mut involved = json!({
            "kind": subject.kind, "namespace": subject.key.namespace, "name": subject.key.name,
            "uid": subject.uid, "apiVersion": "v1"
        });
        if subject.key.namespace.is_empty()
            && let Some(involved) = involved.as_object_mut()
        {
            involved.remove("namespace");
        }
        if let Some(field) = &subject.field {
            involved["fieldPath"] = field.as_str().into();
        }
        let mut source = json!({"component": self.component});
        if self.component != impresario_client::protocol::scheduler::DEFAULT_SCHEDULER {
            source["host"] = self.host.as_str().into();
        }
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {
                "name": name, "namespace": namespace, "uid": uid.to_string(), "creationTimestamp": time
            },
            "involvedObject": involved, "reason": subject.reason, "message": subject.message,
            "source": source, "firstTimestamp": time, "lastTimestamp": time, "count": 1,
            "type": subject.type_, "eventTime": null,
            "reportingComponent": self.component, "reportingInstance": self.host
        });
        (Key::new("events", namespace, name), event)
    }
}

fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follow::{Followed, follow};
    use futures_util::StreamExt;
    use impresario_registry::{MemoryRegistry, Selection, WatchEvent};
    use std::time::Duration;

    #[tokio::test]
    async fn the_same_event_is_written_once_and_counted() {
        let registry: RegistryHandle = Arc::new(MemoryRegistry::new());
        let mut events = follow(registry.clone(), Selection::all("events"));
        let recorder = Recorder::new(registry, "kubelet", "n1");
        let key = Key::new("pods", "ns", "p");
        for _ in 0..3 {
            recorder.warning(&key, "Pod", "u", "BackOff", "Back-off restarting failed container");
        }
        let mut keys = std::collections::BTreeSet::new();
        let counted = async {
            loop {
                if let Some(Followed::Changes(changes)) = events.next().await {
                    for change in changes {
                        let WatchEvent::Put { entry, .. } = change else { continue };
                        keys.insert(entry.key.clone());
                        let event: Value = serde_json::from_slice(&entry.value).unwrap();
                        if event["count"] == 3 {
                            return event;
                        }
                    }
                }
            }
        };
        let event = tokio::time::timeout(Duration::from_secs(10), counted).await.unwrap();
        assert_eq!((event["involvedObject"]["uid"].as_str(), event["type"].as_str()), (Some("u"), Some("Warning")));
        assert_eq!(keys.len(), 1);
    }
}
