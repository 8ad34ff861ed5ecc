//! What a controller looks at beside its object.

use super::super::any_mirror::AnyMirror;
use super::super::control::LookError;
use super::super::mirror::{Mirrored, Seen};
use super::super::wrote::Wrote;
use super::beside::Beside;
use super::kind_name::KindName;
use super::mirrors::Mirrors;
use super::other::Other;
use super::selectors::SelectorOf;
use super::sources::Source;
use super::view::Part;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::marker::PhantomData;
use std::sync::Arc;

/// The kinds that a controller of `K` looks at.
pub struct LooksAt<K> {
    others: Vec<Box<dyn Other<K>>>,
    emptied: Option<Emptied<K>>,
    is_as_new: bool,
}

/// When everything in a namespace is looked at, and what goes first.
type Emptied<K> = (fn(&K) -> bool, &'static [KindName]);

impl<K: Mirrored> LooksAt<K> {
    /// At its object alone.
    #[must_use]
    pub fn itself() -> Self {
        Self { others: Vec::new(), emptied: None, is_as_new: false }
    }

    /// And at the objects of kind `T` that it controls.
    #[must_use]
    pub fn owned<T: Mirrored>(self) -> Self {
        self.and(Owned::<K, T> { adopts: None, of: PhantomData })
    }

    /// And at the objects of kind `T` that it controls, and those in its namespace that nobody does and
    /// this selects.
    #[must_use]
    pub fn owned_or_adopted<T: Mirrored>(self, adopts: SelectorOf<K>) -> Self {
        self.and(Owned::<K, T> { adopts: Some(adopts), of: PhantomData })
    }

    /// And at the objects of kind `T` in its namespace that this selects, whoever controls them. The controller
    /// changes none of them.
    #[must_use]
    pub fn selected<T: Mirrored>(self, selector: SelectorOf<K>) -> Self {
        self.and(Beside::<K, T>::selected(selector, false))
    }

    /// And at the objects of kind `T` in its namespace that this selects, which it makes, changes and deletes.
    #[must_use]
    pub fn kept<T: Mirrored>(self, selector: SelectorOf<K>) -> Self {
        self.and(Beside::<K, T>::selected(selector, true))
    }

    /// And at the object of kind `T` that has its name, in its namespace.
    #[must_use]
    pub fn of_its_name<T: Mirrored>(self) -> Self {
        self.and(Beside::<K, T>::namesake())
    }

    /// And at the objects of kind `T` in the cluster that it `shows`. The greatest that `facet` says of any of these
    /// wakes everybody where it changes; what else changes of them wakes nobody. The controller changes none of them.
    #[must_use]
    pub fn everywhere<T: Mirrored, F: Ord + Send + 'static>(
        self,
        shows: fn(&T) -> bool,
        facet: fn(&T) -> F,
    ) -> Self {
        self.and(Beside::<K, T>::everywhere(shows, facet))
    }

    /// And at all objects of kind `T` in the cluster. Where what `facet` says of one changes, those are woken to which it
    /// `matters`; what else changes of them wakes nobody. The controller changes none of them.
    #[must_use]
    pub fn mattering<T: Mirrored, F: PartialEq + 'static>(
        self,
        facet: fn(&T) -> F,
        matters: fn(&K, Option<&T>, Option<&T>) -> bool,
    ) -> Self {
        self.and(Beside::<K, T>::mattering(facet, matters))
    }

    /// And at those objects of kind `T` in the cluster that concern it, at the most one of each name. Where what `facet` says
    /// of one changes, those that it concerns are woken; what else changes of them wakes nobody. The controller makes
    /// and changes some of a kind that has no namespaces, and none of another.
    #[must_use]
    pub fn concerning<T: Mirrored, F: PartialEq + 'static>(
        self,
        concerns: fn(&K, &T) -> bool,
        facet: fn(&T) -> F,
    ) -> Self {
        self.and(Beside::<K, T>::concerning(concerns, facet))
    }

    /// And at all objects of kind `T` in its namespace. Where what `facet` says of one changes, it is woken; what else changes
    /// of them wakes nobody. The controller changes none of them.
    #[must_use]
    pub fn in_its_namespace<T: Mirrored, F: PartialEq + 'static>(self, facet: fn(&T) -> F) -> Self {
        self.and(Beside::<K, T>::in_its_namespace(facet))
    }

    /// And at the object of kind `T` and this name in the namespace that it is.
    #[must_use]
    pub fn within<T: Mirrored>(self, name: &'static str) -> Self {
        self.and(Beside::<K, T>::within(name))
    }

    /// And, where this holds and it is being deleted, at everything that is in the namespace that it is, as the
    /// registry itself has it; as long as there is any of what goes `first`, at that alone.
    #[must_use]
    pub fn emptied(self, when: fn(&K) -> bool, first: &'static [KindName]) -> Self {
        Self { emptied: Some((when, first)), ..self }
    }

    /// And waits, when it begins, until all of these are as new as the registry is then, also those that it does not change: what
    /// another member has concluded from them is not forgotten.
    #[must_use]
    pub fn as_new_as_the_registry(self) -> Self {
        Self { is_as_new: true, ..self }
    }

    /// Whether it waits, when it begins, also for those that it does not change.
    pub(super) fn is_as_new(&self) -> bool {
        self.is_as_new
    }

    fn and(mut self, other: impl Other<K> + 'static) -> Self {
        self.others.push(Box::new(other));
        self
    }

    /// Each of them.
    pub(super) fn each(&self) -> impl Iterator<Item = &dyn Other<K>> {
        self.others.iter().map(AsRef::as_ref)
    }

    /// What goes first of everything in the namespace that this is, if that is looked at.
    pub(super) fn emptied_first(&self, object: &K) -> Option<&'static [KindName]> {
        self.emptied.filter(|(when, _)| when(object)).map(|(_, first)| first)
    }

    /// What wakes the controllers of `K`.
    #[must_use]
    pub fn sources(&self, mirrors: &Mirrors) -> Vec<Source> {
        self.each().flat_map(|other| other.sources(mirrors)).collect()
    }
}

struct Owned<K, T> {
    adopts: Option<SelectorOf<K>>,
    of: PhantomData<fn() -> T>,
}

impl<K: Mirrored, T: Mirrored> Other<K> for Owned<K, T> {
    fn seen<'a>(
        &self,
        mirrors: &Mirrors,
        wrote: &'a Wrote,
    ) -> BoxFuture<'a, Result<(), LookError>> {
        let mirror = mirrors.of::<T>();
        async move { wrote.seen_by(&mirror).await }.boxed()
    }

    fn part(&self, mirrors: &Mirrors, object: &Seen<K>) -> Part {
        let mirror = mirrors.of::<T>();
        let namespace = &object.entry.key.namespace;
        let uid = object.object.metadata().uid.as_deref().unwrap_or_default();
        let adopts = self.adopts.and_then(|adopts| adopts(&object.object));
        Part::of(mirror.family(namespace, uid, adopts.as_ref()))
    }

    fn sources(&self, mirrors: &Mirrors) -> Vec<Source> {
        let mirror = mirrors.of::<T>();
        let mut sources = vec![Source::controllers_of(&mirror)];
        if let Some(adopts) = self.adopts {
            sources.push(Source::adopters_of(&mirrors.of::<K>(), &mirror, adopts));
        }
        sources
    }

    fn telling(&self, mirrors: &Mirrors, resource: &str) -> Option<Arc<dyn AnyMirror>> {
        let is_meant = KindName::of::<T>().key() == resource;
        is_meant.then(|| Arc::new(mirrors.of::<T>()) as Arc<dyn AnyMirror>)
    }
}
