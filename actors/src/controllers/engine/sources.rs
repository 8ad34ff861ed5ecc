//! What wakes controllers: changes of what they look at.

use super::super::labels;
use super::super::mirror::{Change, Mirror, Mirrored, Seen};
use super::super::owners::controller;
use super::super::panics;
use super::everywhere::{Changed, Together};
use super::kind_name::KindName;
use super::selectors::{SelectorOf, Selectors};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Who should look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concerned {
    /// The controllers of the objects of these uids, where they live here.
    Uids(Vec<String>),
    /// All controllers: changes were missed.
    Everybody,
}

/// Where hints come from. Two of one name are the same, and one of them is enough.
#[derive(Clone)]
pub struct Source {
    name: String,
    run: Arc<dyn Fn(mpsc::Sender<Concerned>) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl fmt::Debug for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Source").field(&self.name).finish()
    }
}

impl Source {
    /// What it follows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Follows until nobody listens or the mirror has ended.
    #[must_use]
    pub fn run(&self, told: mpsc::Sender<Concerned>) -> BoxFuture<'static, ()> {
        (self.run)(told)
    }

    /// Changes of a kind, told to the controllers of what changes.
    #[must_use]
    pub fn controllers_of<T: Mirrored>(mirror: &Mirror<T>) -> Self {
        let mirror = mirror.clone();
        Self {
            name: format!("controllers of {}", KindName::of::<T>()),
            run: Arc::new(move |told| controllers_of(mirror.clone(), told).boxed()),
        }
    }

    /// Changes of objects that nobody controls, told to those that would adopt them by their labels.
    #[must_use]
    pub fn adopters_of<K: Mirrored, T: Mirrored>(
        selecting: &Mirror<K>,
        selected: &Mirror<T>,
        selector: SelectorOf<K>,
    ) -> Self {
        let name = format!("orphans of {} for {}", KindName::of::<T>(), KindName::of::<K>());
        let is_orphan = |metadata: &ObjectMeta| controller(metadata).is_none();
        Self::by_selectors(name, selecting, selected, (selector, is_orphan))
    }

    /// Changes of objects, told to those that select them by their labels.
    #[must_use]
    pub fn selecting<K: Mirrored, T: Mirrored>(
        selecting: &Mirror<K>,
        selected: &Mirror<T>,
        selector: SelectorOf<K>,
    ) -> Self {
        let name = format!("{} selected by {}", KindName::of::<T>(), KindName::of::<K>());
        Self::by_selectors(name, selecting, selected, (selector, |_| true))
    }

    fn by_selectors<K: Mirrored, T: Mirrored>(
        name: String,
        selecting: &Mirror<K>,
        selected: &Mirror<T>,
        (selector, counts): (SelectorOf<K>, fn(&ObjectMeta) -> bool),
    ) -> Self {
        let (selecting, selected) = (selecting.clone(), selected.clone());
        let run = move |told| {
            selectors_of(selecting.clone(), selected.clone(), (selector, counts), told).boxed()
        };
        Self { name, run: Arc::new(run) }
    }

    /// Changes of a kind, told to those that have the name of what changes in its namespace.
    #[must_use]
    pub fn of_the_name_of<K: Mirrored, T: Mirrored>(named: &Mirror<K>, mirror: &Mirror<T>) -> Self {
        let name = format!("{} of the names of {}", KindName::of::<T>(), KindName::of::<K>());
        let named = named.clone();
        Self::told_of(name, mirror, move |change| match change {
            Some((before, now)) => {
                let key = now.or(before).map(|seen| &seen.entry.key);
                let found = key.and_then(|key| named.get(&key.namespace, &key.name));
                found.iter().map(uid).collect()
            }
            None => named.all().iter().map(uid).collect(),
        })
    }

    /// Changes of the objects of this name of a kind, told to those that are called as the namespace is in
    /// which they are.
    #[must_use]
    pub fn within<K: Mirrored, T: Mirrored>(
        spaces: &Mirror<K>,
        mirror: &Mirror<T>,
        name: &'static str,
    ) -> Self {
        let what = format!("{} {name} within {}", KindName::of::<T>(), KindName::of::<K>());
        let spaces = spaces.clone();
        Self::told_of(what, mirror, move |change| match change {
            Some((before, now)) => {
                let key = now.or(before).map(|seen| &seen.entry.key);
                let key = key.filter(|key| key.name == name);
                let found = key.and_then(|key| spaces.get("", &key.namespace));
                found.iter().map(uid).collect()
            }
            None => spaces.all().iter().map(uid).collect(),
        })
    }

    /// Changes of the greatest that a facet says of those objects of a kind that are shown, told to all of another.
    #[must_use]
    pub fn all_by<K: Mirrored, T: Mirrored, F: Ord + Send + 'static>(
        all: &Mirror<K>,
        mirror: &Mirror<T>,
        shows: fn(&T) -> bool,
        facet: fn(&T) -> F,
    ) -> Self {
        let name = format!("{} for all {}", KindName::of::<T>(), KindName::of::<K>());
        let (all, mirror) = (all.clone(), mirror.clone());
        let says = move |seen: &Seen<T>| {
            let object = &*seen.object;
            let says = || shows(object).then(|| facet(object));
            panics::spared(&seen.entry.key.to_string(), None, says)
        };
        let run = move |told: mpsc::Sender<Concerned>| {
            let (mut changes, all, mirror) = (Together::of(&mirror), all.clone(), mirror.clone());
            let mut greatest = mirror.greatest(says);
            async move {
                let differ = |before: Option<&Seen<T>>, now: Option<&Seen<T>>| {
                    before.and_then(says) != now.and_then(says)
                };
                let mut whom = |changed: Changed<T>| -> Vec<String> {
                    let now = mirror.greatest(says);
                    let is_same = now == greatest && !matches!(changed, Changed::Anything);
                    greatest = now;
                    if is_same { Vec::new() } else { all.all().iter().map(uid).collect() }
                };
                while let Some(uids) = changes.next(differ, &mut whom).await {
                    if told.send(Concerned::Uids(uids)).await.is_err() {
                        return;
                    }
                }
            }
            .boxed()
        };
        Self { name, run: Arc::new(run) }
    }

    /// Changes of what a facet says of the objects of a kind, told to those of another to which it `matters`.
    #[must_use]
    pub fn mattering<K: Mirrored, T: Mirrored, F: PartialEq + 'static>(
        all: &Mirror<K>,
        mirror: &Mirror<T>,
        facet: fn(&T) -> F,
        matters: impl Fn(&K, Option<&T>, Option<&T>) -> bool + Clone + Send + Sync + 'static,
    ) -> Self {
        let name = format!("{} for those {} that mind", KindName::of::<T>(), KindName::of::<K>());
        let (all, mirror) = (all.clone(), mirror.clone());
        let says = move |seen: &Seen<T>| {
            panics::spared(&seen.entry.key.to_string(), None, || Some(facet(&seen.object)))
        };
        let run = move |told: mpsc::Sender<Concerned>| {
            let (mut changes, all) = (Together::of(&mirror), all.clone());
            let matters = matters.clone();
            async move {
                let differ = |before: Option<&Seen<T>>, now: Option<&Seen<T>>| {
                    before.map(says) != now.map(says)
                };
                let whom = |changed: Changed<T>| -> Vec<String> {
                    let Changed::Some(changed) = changed else {
                        return all.all().iter().map(uid).collect();
                    };
                    let object =
                        |seen: &Option<Seen<T>>| seen.as_ref().map(|seen| seen.object.clone());
                    let changed: Vec<_> =
                        changed.iter().map(|(before, now)| (object(before), object(now))).collect();
                    let minds = |it: &K| {
                        let minds = || {
                            let mut each = changed.iter();
                            each.any(|(before, now)| matters(it, before.as_deref(), now.as_deref()))
                        };
                        let name = it.metadata().name.as_deref().unwrap_or_default();
                        panics::spared(name, true, minds)
                    };
                    all.picked(minds).iter().map(uid).collect()
                };
                while let Some(uids) = changes.next(differ, &whom).await {
                    if told.send(Concerned::Uids(uids)).await.is_err() {
                        return;
                    }
                }
            }
            .boxed()
        };
        Self { name, run: Arc::new(run) }
    }

    /// Changes of a kind, before and after, that concern the only one of its name in the cluster.
    #[must_use]
    pub fn of_one<T: Mirrored>(
        one: &'static str,
        mirror: &Mirror<T>,
        concerns: fn(Option<&T>, Option<&T>) -> bool,
    ) -> Self {
        let name = format!("{} for {one}", KindName::of::<T>());
        let object = |seen: Option<&Seen<T>>| seen.map(|seen| seen.object.clone());
        Self::told_of(name, mirror, move |change| {
            let concerned = change.is_none_or(|(before, now)| {
                let (before, now) = (object(before), object(now));
                panics::spared(one, true, || concerns(before.as_deref(), now.as_deref()))
            });
            concerned.then(|| one.to_owned()).into_iter().collect()
        })
    }

    /// Signals that the only one of its name in the cluster looks at, from when it is asked for them.
    #[must_use]
    pub fn signals(
        one: &'static str,
        signals: impl Fn() -> BoxStream<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: format!("signals for {one}"),
            run: Arc::new(move |told| {
                let mut signals = signals();
                async move {
                    while signals.next().await.is_some() {
                        if told.send(Concerned::Uids(vec![one.to_owned()])).await.is_err() {
                            return;
                        }
                    }
                }
                .boxed()
            }),
        }
    }

    /// Follows a mirror. `whom` names those that an object's change concerns, by what it was and what it is;
    /// all of them where changes were missed.
    fn told_of<T: Mirrored>(
        name: String,
        mirror: &Mirror<T>,
        whom: impl Fn(Option<Versions<'_, T>>) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        let (mirror, whom) = (mirror.clone(), Arc::new(whom));
        Self {
            name,
            run: Arc::new(move |told| {
                let (mut changes, whom) = (mirror.changes(), whom.clone());
                let mirror = mirror.clone();
                async move {
                    // Held: the mirror must go on as long as it is followed.
                    let _mirror = mirror;
                    while let Some(change) = changes.next().await {
                        let uids = match change {
                            Change::Put { now, before } => {
                                whom(Some((before.as_ref(), Some(&now))))
                            }
                            Change::Deleted { before } => whom(Some((Some(&before), None))),
                            Change::Everything => whom(None),
                        };
                        if !uids.is_empty() && told.send(Concerned::Uids(uids)).await.is_err() {
                            return;
                        }
                    }
                }
                .boxed()
            }),
        }
    }
}

/// An object as it was and as it is.
type Versions<'a, T> = (Option<&'a Seen<T>>, Option<&'a Seen<T>>);

fn uid<K: Mirrored>(seen: &Seen<K>) -> String {
    seen.object.metadata().uid.clone().unwrap_or_default()
}

async fn controllers_of<T: Mirrored>(mirror: Mirror<T>, told: mpsc::Sender<Concerned>) {
    let mut changes = mirror.changes();
    while let Some(change) = changes.next().await {
        let versions = match change {
            Change::Put { now, before } => [Some(now), before],
            Change::Deleted { before } => [Some(before), None],
            Change::Everything => {
                if told.send(Concerned::Everybody).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let uids: BTreeSet<&str> = versions
            .iter()
            .flatten()
            .filter_map(|seen| controller(seen.object.metadata()))
            .map(|owner| owner.uid.as_str())
            .collect();
        if uids.is_empty() {
            continue;
        }
        let uids = uids.into_iter().map(str::to_owned).collect();
        if told.send(Concerned::Uids(uids)).await.is_err() {
            return;
        }
    }
}

async fn selectors_of<K: Mirrored, T: Mirrored>(
    selecting: Mirror<K>,
    selected: Mirror<T>,
    (selector, counts): (SelectorOf<K>, fn(&ObjectMeta) -> bool),
    told: mpsc::Sender<Concerned>,
) {
    let (mut selectors, mut changes) = (selecting.changes(), selected.changes());
    let mut index = Selectors::default();
    fill(&mut index, &selecting, selector);
    loop {
        tokio::select! {
            // Selectors first: one that was there before a label changed is filed before that is looked up.
            biased;
            change = selectors.next() => match change {
                Some(Change::Put { now, .. }) => file(&mut index, &now, selector),
                Some(Change::Deleted { before }) => {
                    index.remove(before.object.metadata().uid.as_deref().unwrap_or_default());
                }
                Some(Change::Everything) => fill(&mut index, &selecting, selector),
                None => return,
            },
            change = changes.next() => {
                let uids = match change {
                    Some(Change::Put { now, before }) => found(&index, counts, &now, before.as_ref()),
                    Some(Change::Deleted { before }) => found(&index, counts, &before, None),
                    Some(Change::Everything) => index.all().map(str::to_owned).collect(),
                    None => return,
                };
                if !uids.is_empty() && told.send(Concerned::Uids(uids)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Those that select the object as it is and as it was, where it counts for them.
fn found<T: Mirrored>(
    index: &Selectors,
    counts: fn(&ObjectMeta) -> bool,
    now: &Seen<T>,
    before: Option<&Seen<T>>,
) -> Vec<String> {
    let mut uids = BTreeSet::new();
    for seen in [Some(now), before].into_iter().flatten() {
        let metadata = seen.object.metadata();
        if counts(metadata) {
            uids.extend(index.selecting(&seen.entry.key.namespace, labels::of(metadata)));
        }
    }
    uids.into_iter().map(str::to_owned).collect()
}

fn fill<K: Mirrored>(index: &mut Selectors, selecting: &Mirror<K>, selector: SelectorOf<K>) {
    index.clear();
    for seen in selecting.all() {
        file(index, &seen, selector);
    }
}

fn file<K: Mirrored>(index: &mut Selectors, seen: &Seen<K>, selector: SelectorOf<K>) {
    let uid = seen.object.metadata().uid.as_deref().unwrap_or_default();
    match panics::spared(&seen.entry.key.to_string(), None, || selector(&seen.object)) {
        Some(selector) => index.put(uid, &seen.entry.key.namespace, selector),
        None => index.remove(uid),
    }
}
