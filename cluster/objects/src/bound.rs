//! Which pod is bound where, and what it names: how far a node reaches, looked up and never searched.
//!
//! Kept from a watch of the pods. A pod is read once, when it is seen bound for the first time: what it
//! names and where it is do not change after that.

use crate::may::Bound;
use crate::named::{named_by, named_resource};
use futures_util::StreamExt;
use impresario_registry_api::{
    Consistency, Entry, Key, ListRequest, RegistryHandle, Revision, Selection, WatchEvent,
    WatchRequest, field,
};
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The shortest and the longest pause before the pods are listed again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// So many pods that are gone are remembered with their nodes: of those there is still something to tell.
const GONE: usize = 4096;

/// How long after a pod went its node may have something to tell of it. Whoever does not remember all that went within
/// this time does not know of one that is not there whose it was.
pub(crate) const LAST_WORDS: Duration = Duration::from_mins(5);

/// Namespace and name of a pod.
type Place = (String, String);
/// Resource, namespace and name of what a pod names.
type Named = (&'static str, String, String);

#[derive(Debug)]
struct BoundPod {
    node: String,
    created: Revision,
    names: Vec<Named>,
}

#[derive(Debug, Default)]
struct State {
    pods: HashMap<Place, BoundPod>,
    /// Where pods were bound that are gone since.
    gone: HashMap<Place, String>,
    /// The same pods, first the one that went first.
    went: VecDeque<(Place, Instant)>,
    /// Since when all that went is remembered.
    since: Option<Instant>,
    /// Whether all pods were listed and are being followed since.
    is_current: bool,
    /// How many pods of a node name an object.
    named: HashMap<String, HashMap<Named, usize>>,
}

impl State {
    /// Whether anything is known now that was not before.
    fn put(&mut self, entry: &Entry) -> bool {
        let place = (entry.key.namespace.clone(), entry.key.name.clone());
        match self.pods.get(&place) {
            Some(known) if known.created == entry.create_revision => return false,
            Some(_) => self.remove(&place, Instant::now()),
            None => {}
        }
        let node = field::string_at(&entry.value, "/spec/nodeName").unwrap_or_default();
        if node.is_empty() {
            return false;
        }
        let pod = match serde_json::from_slice::<Value>(&entry.value) {
            Ok(pod) => pod,
            Err(error) => {
                let (namespace, name) = place;
                tracing::error!(%error, namespace, name, "a pod cannot be read: its node is refused what it names");
                return false;
            }
        };
        let mut names: Vec<Named> = named_by(&pod)
            .into_iter()
            .map(|(resource, name)| (resource, place.0.clone(), name))
            .collect();
        names.sort_unstable();
        names.dedup();
        let of_node = self.named.entry(node.clone()).or_default();
        for name in &names {
            *of_node.entry(name.clone()).or_default() += 1;
        }
        self.pods.insert(place, BoundPod { node, created: entry.create_revision, names });
        true
    }

    fn remove(&mut self, place: &Place, now: Instant) {
        let Some(pod) = self.pods.remove(place) else { return };
        let Some(of_node) = self.named.get_mut(&pod.node) else { return };
        for name in pod.names {
            if let Some(count) = of_node.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    of_node.remove(&name);
                }
            }
        }
        if of_node.is_empty() {
            self.named.remove(&pod.node);
        }
        self.remember(place.clone(), pod.node, now);
    }

    /// A pod that was bound to this node is gone.
    fn remember(&mut self, place: Place, node: String, now: Instant) {
        if self.gone.insert(place.clone(), node).is_some() {
            self.went.retain(|(other, _)| *other != place);
        }
        self.went.push_back((place, now));
        if self.went.len() > GONE
            && let Some((first, went)) = self.went.pop_front()
        {
            self.gone.remove(&first);
            self.since = self.since.max(Some(went));
        }
    }

    /// Whether a pod of which nothing is known was none of the last minutes.
    fn remembers(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= LAST_WORDS)
    }

    /// The pods of a list. Reading them takes long where there are many: nobody holds a lock meanwhile.
    fn listed(entries: &[Entry]) -> Self {
        let mut fresh = Self { is_current: true, ..Self::default() };
        for entry in entries {
            fresh.put(entry);
        }
        fresh
    }

    /// The pods as they were listed anew; those that went meanwhile are remembered, but for those that came meanwhile.
    fn renew(&mut self, fresh: Self, now: Instant) {
        let before = std::mem::replace(self, fresh);
        (self.gone, self.went, self.since) = (before.gone, before.went, Some(now));
        for (place, pod) in before.pods {
            if !self.pods.contains_key(&place) {
                self.remember(place, pod.node, now);
            }
        }
    }

    fn node_of(&self, place: &Place) -> Option<&String> {
        self.pods.get(place).map(|pod| &pod.node).or_else(|| self.gone.get(place))
    }
}

/// The pods that are bound, of a registry that is followed for as long as this lives.
#[derive(Debug)]
pub struct Bindings {
    state: Arc<RwLock<State>>,
    /// Rises when something became known.
    news: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Drop for Bindings {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bindings {
    /// Follows the pods of a registry. Must be called within a tokio runtime.
    pub fn follow(registry: RegistryHandle) -> Self {
        let state = Arc::new(RwLock::new(State::default()));
        let (told, news) = watch::channel(0);
        let task = tokio::spawn(follow(registry, state.clone(), told));
        Self { state, news, task }
    }

    /// Whether the pods are being followed. Who is refused while they are not may be within its rights.
    pub fn is_current(&self) -> bool {
        self.state.read().is_current
    }

    /// Whether a pod of which nothing is known is none that went a while ago: it may have gone before this process came.
    pub fn remembers(&self) -> bool {
        self.state.read().remembers(Instant::now())
    }

    /// Tells when something becomes known.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.clone()
    }
}

impl Bound for Bindings {
    fn node_of(&self, namespace: &str, pod: &str) -> Option<String> {
        let place = (namespace.to_owned(), pod.to_owned());
        self.state.read().node_of(&place).cloned()
    }

    fn names(&self, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let state = self.state.read();
        let Some(of_node) = state.named.get(node) else { return false };
        named_resource(resource).is_some_and(|resource| {
            of_node.contains_key(&(resource, namespace.to_owned(), name.to_owned()))
        })
    }
}

async fn follow(registry: RegistryHandle, state: Arc<RwLock<State>>, told: watch::Sender<u64>) {
    let mut pause = PAUSES.0;
    loop {
        let list = ListRequest {
            consistency: Consistency::Local,
            ..ListRequest::of(Selection::all("pods"))
        };
        match registry.list(list).await {
            Ok(page) => {
                let fresh = State::listed(&page.entries);
                state.write().renew(fresh, Instant::now());
                told.send_modify(|count| *count += 1);
                pause = PAUSES.0;
                keep_up(&registry, page.revision, &state, &told).await;
                state.write().is_current = false;
            }
            Err(error) => tracing::debug!(%error, "the pods cannot be listed yet"),
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Follows the changes until the thread is lost.
async fn keep_up(
    registry: &RegistryHandle,
    mut after: Revision,
    state: &RwLock<State>,
    told: &watch::Sender<u64>,
) {
    let mut failures = 0;
    while failures < 3 {
        let request = WatchRequest { select: Selection::all("pods"), after, bookmarks: true };
        let mut watch = match registry.watch(request).await {
            Ok(watch) => watch,
            Err(error) => return tracing::debug!(%error, "the pods cannot be followed"),
        };
        while let Some(batch) = watch.next().await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::debug!(%error, "the watch of the pods ended");
                    break;
                }
            };
            failures = 0;
            after = after.max(batch.revision);
            let mut known = false;
            {
                let mut state = state.write();
                for event in &batch.events {
                    match event {
                        WatchEvent::Put { entry, .. } => known |= state.put(entry),
                        WatchEvent::Delete { previous, .. } => {
                            let Key { namespace, name, .. } = &previous.key;
                            state.remove(&(namespace.clone(), name.clone()), Instant::now());
                        }
                    }
                }
            }
            if known {
                told.send_modify(|count| *count += 1);
            }
        }
        failures += 1;
        tokio::time::sleep(PAUSES.0).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(name: &str, created: Revision, spec: &Value) -> Entry {
        let object = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec});
        Entry {
            key: Key::new("pods", "ns", name),
            value: object.to_string().into(),
            create_revision: created,
            mod_revision: created,
        }
    }

    #[test]
    fn a_node_reaches_what_its_pods_name_until_the_last_of_them_is_gone() {
        let mut state = State::default();
        let spec = json!({
            "nodeName": "n1",
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "v", "secret": {"secretName": "files"}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "projected"}}]}},
                {"name": "scratch", "ephemeral": {}}
            ],
            "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key"}}}]}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "env"}}]}]
        });
        assert!(state.put(&entry("a", 1, &spec)));
        assert!(!state.put(&entry("a", 1, &spec)), "read once");
        assert!(state.put(&entry("b", 2, &spec)));
        assert!(!state.put(&entry("waits", 3, &json!({"volumes": spec["volumes"]}))));
        let named = |state: &State, resource: &'static str, name: &str| {
            let of_node = state.named.get("n1");
            of_node.is_some_and(|it| it.contains_key(&(resource, "ns".into(), name.into())))
        };
        let all = [
            ("secrets", "pull"),
            ("secrets", "files"),
            ("configmaps", "projected"),
            ("persistentvolumeclaims", "a-scratch"),
            ("secrets", "key"),
            ("configmaps", "env"),
        ];
        for (resource, name) in all {
            assert!(named(&state, resource, name), "{resource} {name}");
        }
        state.remove(&("ns".into(), "a".into()), Instant::now());
        assert!(named(&state, "secrets", "key"), "b still names it");
        // A pod of the same name that came since is another one.
        assert!(state.put(&entry(
            "b",
            9,
            &json!({"nodeName": "n2", "imagePullSecrets": [{"name": "pull"}]})
        )));
        assert!(!state.named.contains_key("n1") && state.named.contains_key("n2"));
    }

    #[test]
    fn where_a_pod_was_is_known_for_a_while_after_it_went() {
        let (mut state, begun) = (State::default(), Instant::now());
        let on = |node: &str| json!({"nodeName": node});
        let place = |name: &str| ("ns".to_owned(), name.to_owned());
        let node_of = |state: &State, name: &str| state.node_of(&place(name)).cloned();
        state.put(&entry("a", 1, &on("n1")));
        state.put(&entry("b", 2, &on("n1")));
        state.put(&entry("waits", 3, &json!({})));
        assert_eq!(node_of(&state, "waits"), None);
        state.remove(&place("a"), begun);
        assert_eq!(node_of(&state, "a").as_deref(), Some("n1"));
        // Another of the name is where it is, and not where the first one was.
        state.put(&entry("a", 4, &on("n2")));
        assert_eq!(node_of(&state, "a").as_deref(), Some("n2"));
        // What went while nobody looked is remembered, too.
        state.renew(State::listed(&[entry("a", 4, &on("n2"))]), begun);
        assert_eq!(node_of(&state, "b").as_deref(), Some("n1"));
        // What went before that is not known, nor what came and went meanwhile.
        assert!(!state.remembers(begun + LAST_WORDS / 2) && state.remembers(begun + LAST_WORDS));
        for number in 0..=GONE {
            let name = format!("p{number}");
            state.put(&entry(&name, 5, &on("n3")));
            state.remove(&place(&name), begun + LAST_WORDS);
        }
        assert_eq!((node_of(&state, "b"), state.went.len()), (None, GONE));
        assert_eq!(state.gone.len(), GONE);
        // Nor what the later ones took the place of.
        assert!(!state.remembers(begun + LAST_WORDS) && state.remembers(begun + LAST_WORDS * 2));
    }
}
