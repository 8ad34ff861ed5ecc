//! What a mirror shows, and the indexes by which it is found.

use super::super::labels;
use super::super::owners::controller;
use super::super::partial::Partial;
use super::orphans::Orphans;
use super::seen::{Mirrored, Seen};
use impresario_registry_api::Entry;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Namespace and name.
pub(super) type Place = (String, String);

pub(super) struct State<K> {
    pub(super) objects: BTreeMap<Place, Seen<K>>,
    /// Those that the type cannot read, by their metadata: they are there, and may own and be owned.
    pub(super) misread: BTreeMap<Place, Seen<Partial>>,
    /// Of both.
    by_owner: HashMap<String, BTreeSet<Place>>,
    orphans: Orphans,
    /// Those that were filed before the watch brought them.
    ahead: BTreeSet<Place>,
}

/// What became of an object that was put.
pub(super) struct Filed<K> {
    /// What it was, if the type could read that.
    pub(super) before: Option<Seen<K>>,
    /// What it is.
    pub(super) now: Result<Seen<K>, Misread>,
}

/// What is known of an object that the type cannot read.
pub(super) struct Misread {
    /// Its metadata, if there is that much.
    pub(super) now: Option<Seen<Partial>>,
    /// What the type says.
    pub(super) cause: serde_json::Error,
}

/// What was there where something is deleted.
pub(super) enum Was<K> {
    Read(Seen<K>),
    Misread(Seen<Partial>),
}

/// Where an object is filed.
pub(super) fn place_of(entry: &Entry) -> Place {
    (entry.key.namespace.clone(), entry.key.name.clone())
}

/// What an entry says. Takes time: it is done before anybody is kept from looking.
pub(super) fn read<K: Mirrored>(entry: &Entry) -> Result<Seen<K>, Misread> {
    match serde_json::from_slice::<K>(&entry.value) {
        Ok(object) => Ok(Seen { object: Arc::new(object), entry: entry.clone() }),
        Err(cause) => {
            let now = serde_json::from_slice::<Partial>(&entry.value).ok();
            let now = now.map(|now| Seen { object: Arc::new(now), entry: entry.clone() });
            Err(Misread { now, cause })
        }
    }
}

/// Whether what is shown was made when the object of this entry was.
fn is_of_the_life<K>(shown: &Seen<K>, entry: &Entry) -> bool {
    shown.entry.create_revision == entry.create_revision
}

impl<K: Mirrored> State<K> {
    pub(super) fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            misread: BTreeMap::new(),
            by_owner: HashMap::new(),
            orphans: Orphans::default(),
            ahead: BTreeSet::new(),
        }
    }

    /// Files what was [`read`] of an object that was put.
    pub(super) fn put(&mut self, place: Place, now: Result<Seen<K>, Misread>) -> Filed<K> {
        let now = match now {
            Ok(now) => now,
            Err(misread) => {
                let before = match self.delete(&place) {
                    Some(Was::Read(before)) => Some(before),
                    Some(Was::Misread(_)) | None => None,
                };
                if let Some(now) = &misread.now {
                    self.file_owners(now.object.meta(), &place);
                    self.misread.insert(place, now.clone());
                }
                return Filed { before, now: Err(misread) };
            }
        };
        let before = self.show(place, now.clone());
        Filed { before, now: Ok(now) }
    }

    /// Shows it; what was shown there.
    fn show(&mut self, place: Place, now: Seen<K>) -> Option<Seen<K>> {
        self.ahead.remove(&place);
        let before = self.objects.insert(place.clone(), now.clone());
        match &before {
            Some(before) => self.forget(before.object.metadata(), &place),
            None => {
                if let Some(before) = self.misread.remove(&place) {
                    self.forget(before.object.meta(), &place);
                }
            }
        }
        self.orphans.put(&place.0, &place.1, now.object.metadata());
        self.file_owners(now.object.metadata(), &place);
        before
    }

    /// Whether what the watch brings is no news: this state of the object is shown, or a later one. Of another life of
    /// the name nothing is.
    pub(super) fn is_known(&mut self, entry: &Entry) -> bool {
        let place = place_of(entry);
        let Some(shown) = self.objects.get(&place) else { return false };
        if shown.entry.mod_revision == entry.mod_revision {
            self.ahead.remove(&place);
        }
        is_of_the_life(shown, entry) && shown.entry.mod_revision >= entry.mod_revision
    }

    /// Whether this is a later state of an object that is shown.
    pub(super) fn is_news(&self, entry: &Entry) -> bool {
        self.objects.get(&place_of(entry)).is_some_and(|shown| {
            is_of_the_life(shown, entry) && shown.entry.mod_revision < entry.mod_revision
        })
    }

    /// Shows a later state of an object that is shown, before the watch brings it: what was shown. Nothing is done
    /// about one that is not, or that has another life by now.
    pub(super) fn advance(&mut self, now: Seen<K>) -> Option<Seen<K>> {
        if !self.is_news(&now.entry) {
            return None;
        }
        let place = place_of(&now.entry);
        let before = self.show(place.clone(), now);
        self.ahead.insert(place);
        before
    }

    /// Keeps what another state of the same shows that was filed ahead of what this one is of.
    pub(super) fn keep_ahead(&mut self, other: &Self) {
        for seen in other.ahead.iter().filter_map(|place| other.objects.get(place)) {
            self.advance(seen.clone());
        }
    }

    pub(super) fn delete(&mut self, place: &Place) -> Option<Was<K>> {
        self.ahead.remove(place);
        if let Some(before) = self.objects.remove(place) {
            self.forget(before.object.metadata(), place);
            return Some(Was::Read(before));
        }
        let before = self.misread.remove(place)?;
        self.forget(before.object.meta(), place);
        Some(Was::Misread(before))
    }

    /// The objects of a namespace whose controller has this uid, in order of their names, and then those that nobody
    /// controls and `adopts` selects.
    pub(super) fn family(
        &self,
        namespace: &str,
        uid: &str,
        adopts: Option<&LabelSelector>,
    ) -> Vec<Seen<K>> {
        let places = self.by_owner.get(uid).into_iter().flatten();
        let is_its_own =
            |seen: &Seen<K>| controller(seen.object.metadata()).is_some_and(|it| it.uid == uid);
        let mut family: Vec<_> = places
            .filter(|(within, _)| within == namespace)
            .filter_map(|place| self.objects.get(place))
            .filter(|seen| is_its_own(seen))
            .cloned()
            .collect();
        if let Some(selector) = adopts {
            let names = self.orphans.among(namespace, selector);
            let orphans = names
                .filter_map(|name| self.objects.get(&(namespace.to_owned(), name.clone())))
                .filter(|seen| labels::selects(selector, labels::of(seen.object.metadata())));
            family.extend(orphans.cloned());
        }
        family
    }

    /// Whether an object has an owner of this uid.
    pub(super) fn is_owned_by(&self, uid: &str) -> bool {
        self.by_owner.contains_key(uid)
    }

    fn file_owners(&mut self, metadata: &ObjectMeta, place: &Place) {
        for owner in metadata.owner_references.iter().flatten() {
            self.by_owner.entry(owner.uid.clone()).or_default().insert(place.clone());
        }
    }

    fn forget(&mut self, metadata: &ObjectMeta, place: &Place) {
        self.orphans.take(&place.0, &place.1, metadata);
        for owner in metadata.owner_references.iter().flatten() {
            if let Some(owned) = self.by_owner.get_mut(&owner.uid) {
                owned.remove(place);
                if owned.is_empty() {
                    self.by_owner.remove(&owner.uid);
                }
            }
        }
    }
}
