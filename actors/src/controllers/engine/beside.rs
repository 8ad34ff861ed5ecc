//! What a controller looks at that is not its own: what it selects, what has its name, what is
//! within it, what is everywhere.

use super::super::control::LookError;
use super::super::labels;
use super::super::mirror::{Mirror, Mirrored, Seen};
use super::super::panics;
use super::super::wrote::Wrote;
use super::mirrors::Mirrors;
use super::other::Other;
use super::selectors::SelectorOf;
use super::sources::Source;
use super::view::Part;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

type Shown<K, T> = Box<dyn Fn(&Mirror<T>, &Seen<K>) -> Part + Send + Sync>;
type Wakes<K, T> = Box<dyn Fn(&Mirror<K>, &Mirror<T>) -> Source + Send + Sync>;

/// Objects of kind `T` that concern one of kind `K` and are not its own.
pub(super) struct Beside<K, T> {
    shown: Shown<K, T>,
    wakes: Wakes<K, T>,
    is_written: bool,
    /// The only name that is looked at, where there is one.
    name: Option<&'static str>,
}

impl<K: Mirrored, T: Mirrored> Beside<K, T> {
    /// Those that an object selects by their labels, and whether its controller changes them.
    pub(super) fn selected(selector: SelectorOf<K>, is_written: bool) -> Self {
        let shown = move |mirror: &Mirror<T>, object: &Seen<K>| {
            let Some(selector) = selector(&object.object) else {
                return Part::of::<T>(Vec::new());
            };
            let selects = |other: &T| labels::selects(&selector, labels::of(other.metadata()));
            Part::of(mirror.picked_within(&object.entry.key.namespace, selects))
        };
        let wakes =
            move |of: &Mirror<K>, mirror: &Mirror<T>| Source::selecting(of, mirror, selector);
        Self { shown: Box::new(shown), wakes: Box::new(wakes), is_written, name: None }
    }

    /// The one that has the name of another in its namespace.
    pub(super) fn namesake() -> Self {
        let shown = |mirror: &Mirror<T>, object: &Seen<K>| {
            let key = &object.entry.key;
            Part::of(mirror.get(&key.namespace, &key.name).into_iter().collect())
        };
        let wakes: Wakes<K, T> = Box::new(Source::of_the_name_of);
        Self { shown: Box::new(shown), wakes, is_written: true, name: None }
    }

    /// The one of a name in the namespace that another is.
    pub(super) fn within(name: &'static str) -> Self {
        let shown = move |mirror: &Mirror<T>, object: &Seen<K>| {
            let namespace = &object.entry.key.name;
            let found = mirror.get(namespace, name);
            Part::of(found.into_iter().collect()).within(namespace)
        };
        let wakes = move |of: &Mirror<K>, mirror: &Mirror<T>| Source::within(of, mirror, name);
        let (shown, wakes) = (Box::new(shown), Box::new(wakes));
        Self { shown, wakes, is_written: true, name: Some(name) }
    }

    /// All of them, told of by a facet of each to those to which it matters. The controller changes none of them.
    pub(super) fn mattering<F: PartialEq + 'static>(
        facet: fn(&T) -> F,
        matters: fn(&K, Option<&T>, Option<&T>) -> bool,
    ) -> Self {
        let shown = |mirror: &Mirror<T>, _: &Seen<K>| Part::of(mirror.all());
        let wakes =
            move |of: &Mirror<K>, mirror: &Mirror<T>| Source::mattering(of, mirror, facet, matters);
        Self { shown: Box::new(shown), wakes: Box::new(wakes), is_written: false, name: None }
    }

    /// Those in its namespace, told of by a facet of each. The controller changes none of them.
    pub(super) fn in_its_namespace<F: PartialEq + 'static>(facet: fn(&T) -> F) -> Self {
        let shown = |mirror: &Mirror<T>, object: &Seen<K>| {
            Part::of(mirror.within(&object.entry.key.namespace))
        };
        let matters = |of: &K, before: Option<&T>, now: Option<&T>| {
            let other = now.or(before).and_then(|other| other.metadata().namespace.as_deref());
            of.metadata().namespace.as_deref() == other
        };
        let wakes =
            move |of: &Mirror<K>, mirror: &Mirror<T>| Source::mattering(of, mirror, facet, matters);
        Self { shown: Box::new(shown), wakes: Box::new(wakes), is_written: false, name: None }
    }

    /// Those of all that concern it, told of by a facet of each. Its controller makes and changes them.
    pub(super) fn concerning<F: PartialEq + 'static>(
        concerns: fn(&K, &T) -> bool,
        facet: fn(&T) -> F,
    ) -> Self {
        let shown = move |mirror: &Mirror<T>, object: &Seen<K>| {
            // Read first: what came since is shown, too.
            let complete = mirror.revision();
            let picked = mirror.picked(|other| {
                let name = other.metadata().name.as_deref().unwrap_or_default();
                panics::spared(name, false, || concerns(&object.object, other))
            });
            Part::of(picked).within("").complete(complete)
        };
        let matters = move |of: &K, before: Option<&T>, now: Option<&T>| {
            [before, now].into_iter().flatten().any(|other| concerns(of, other))
        };
        let wakes =
            move |of: &Mirror<K>, mirror: &Mirror<T>| Source::mattering(of, mirror, facet, matters);
        Self { shown: Box::new(shown), wakes: Box::new(wakes), is_written: true, name: None }
    }

    /// Those of all that it shows, told of by a facet of them. The controller changes none of them.
    pub(super) fn everywhere<F: Ord + Send + 'static>(
        shows: fn(&T) -> bool,
        facet: fn(&T) -> F,
    ) -> Self {
        let shown = move |mirror: &Mirror<T>, _: &Seen<K>| {
            Part::of(mirror.picked(|other| {
                let name = other.metadata().name.as_deref().unwrap_or_default();
                panics::spared(name, false, || shows(other))
            }))
        };
        let wakes =
            move |of: &Mirror<K>, mirror: &Mirror<T>| Source::all_by(of, mirror, shows, facet);
        Self { shown: Box::new(shown), wakes: Box::new(wakes), is_written: false, name: None }
    }

    fn mirror(&self, mirrors: &Mirrors) -> Mirror<T> {
        self.name.map_or_else(|| mirrors.of(), |name| mirrors.named(name))
    }
}

impl<K: Mirrored, T: Mirrored> Other<K> for Beside<K, T> {
    fn seen<'a>(
        &self,
        mirrors: &Mirrors,
        wrote: &'a Wrote,
    ) -> BoxFuture<'a, Result<(), LookError>> {
        let mirror = self.mirror(mirrors);
        async move { wrote.seen_by(&mirror).await }.boxed()
    }

    fn part(&self, mirrors: &Mirrors, object: &Seen<K>) -> Part {
        (self.shown)(&self.mirror(mirrors), object)
    }

    fn sources(&self, mirrors: &Mirrors) -> Vec<Source> {
        vec![(self.wakes)(&mirrors.of(), &self.mirror(mirrors))]
    }

    fn is_written(&self) -> bool {
        self.is_written
    }
}
