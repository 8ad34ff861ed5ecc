//! What a controller looks at that is not its own: what it selects, what has its name, what is
//! within it, what is everywhere.

use super::super::control::LookError;
use super::super::labels;
use super::super::mirror::{Mirrored, Seen};
use super::super::panics;
use super::super::wrote::Wrote;
use super::mirrors::Mirrors;
use super::other::Other;
use super::selectors::SelectorOf;
use super::sources::Source;
use super::view::Part;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::marker::PhantomData;

/// Objects of kind `T` that an object of kind `K` selects by their labels.
pub(super) struct Selected<K, T> {
    selector: SelectorOf<K>,
    of: PhantomData<fn() -> T>,
}

impl<K, T> Selected<K, T> {
    pub(super) fn by(selector: SelectorOf<K>) -> Self {
        Self { selector, of: PhantomData }
    }
}

impl<K: Mirrored, T: Mirrored> Other<K> for Selected<K, T> {
    fn seen<'a>(
        &self,
        mirrors: &Mirrors,
        wrote: &'a Wrote,
    ) -> BoxFuture<'a, Result<(), LookError>> {
        seen::<T>(mirrors, wrote)
    }

    fn part(&self, mirrors: &Mirrors, object: &Seen<K>) -> Part {
        let Some(selector) = (self.selector)(&object.object) else {
            return Part::of::<T>(Vec::new());
        };
        let selects = |other: &T| labels::selects(&selector, labels::of(other.metadata()));
        Part::of(mirrors.of::<T>().picked_within(&object.entry.key.namespace, selects))
    }

    fn sources(&self, mirrors: &Mirrors) -> Vec<Source> {
        vec![Source::selecting(&mirrors.of::<K>(), &mirrors.of::<T>(), self.selector)]
    }
}

/// The object of kind `T` that has the name of another in its namespace.
pub(super) struct Namesake<T>(PhantomData<fn() -> T>);

impl<T> Namesake<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<K: Mirrored, T: Mirrored> Other<K> for Namesake<T> {
    fn seen<'a>(
        &self,
        mirrors: &Mirrors,
        wrote: &'a Wrote,
    ) -> BoxFuture<'a, Result<(), LookError>> {
        seen::<T>(mirrors, wrote)
    }

    fn part(&self, mirrors: &Mirrors, object: &Seen<K>) -> Part {
        let key = &object.entry.key;
        Part::of(mirrors.of::<T>().get(&key.namespace, &key.name).into_iter().collect())
    }

    fn sources(&self, mirrors: &Mirrors) -> Vec<Source> {
        vec![Source::of_the_name_of(&mirrors.of::<K>(), &mirrors.of::<T>())]
    }
}

/// The object of kind `T` and a name in the namespace that another is.
pub(super) struct Within<T> {
    name: &'static str,
    of: PhantomData<fn() -> T>,
}

impl<T> Within<T> {
    pub(super) fn called(name: &'static str) -> Self {
        Self { name, of: PhantomData }
    }
}

impl<K: Mirrored, T: Mirrored> Other<K> for Within<T> {
    fn seen<'a>(
        &self,
        mirrors: &Mirrors,
        wrote: &'a Wrote,
    ) -> BoxFuture<'a, Result<(), LookError>> {
        seen::<T>(mirrors, wrote)
    }

    fn part(&self, mirrors: &Mirrors, object: &Seen<K>) -> Part {
        let namespace = &object.entry.key.name;
        let found = mirrors.of::<T>().get(namespace, self.name);
        Part::of(found.into_iter().collect()).within(namespace)
    }

    fn sources(&self, mirrors: &Mirrors) -> Vec<Source> {
        vec![Source::within(&mirrors.of::<K>(), &mirrors.of::<T>(), self.name)]
    }
}

/// Objects of kind `T` of which a facet says something.
pub(super) struct Everywhere<T, F> {
    pub(super) facet: fn(&T) -> Option<F>,
}

impl<K: Mirrored, T: Mirrored, F: PartialEq + 'static> Other<K> for Everywhere<T, F> {
    fn seen<'a>(
        &self,
        mirrors: &Mirrors,
        wrote: &'a Wrote,
    ) -> BoxFuture<'a, Result<(), LookError>> {
        seen::<T>(mirrors, wrote)
    }

    fn part(&self, mirrors: &Mirrors, _: &Seen<K>) -> Part {
        let says = |other: &T| {
            let name = other.metadata().name.as_deref().unwrap_or_default();
            panics::spared(name, None, || (self.facet)(other)).is_some()
        };
        Part::of(mirrors.of::<T>().picked(says))
    }

    fn sources(&self, mirrors: &Mirrors) -> Vec<Source> {
        vec![Source::all_by(&mirrors.of::<K>(), &mirrors.of::<T>(), self.facet)]
    }

    fn is_written(&self) -> bool {
        false
    }
}

fn seen<'a, T: Mirrored>(
    mirrors: &Mirrors,
    wrote: &'a Wrote,
) -> BoxFuture<'a, Result<(), LookError>> {
    let mirror = mirrors.of::<T>();
    async move { wrote.seen_by(&mirror).await }.boxed()
}
