//! What is garbage, from metadata alone.
//!
//! An owner is an object of the kind, name and uid that a reference says, in the namespace of the
//! dependent or in none. A dependent goes when none of its owners is there; references to owners that
//! are gone are taken off one that stays. (Kubernetes documentation, "Owners and dependents" and
//! "Garbage collection".)

use super::super::job::plan::TRACKING;
use super::super::owners::controller;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::{HashMap, HashSet};

/// The finalizer of an object whose dependents go first.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents stay.
pub const ORPHAN: &str = "orphan";

/// What is seen of an owner that a reference names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is there, or its deletion is nothing to its dependents yet.
    Stays,
    /// It is being deleted and waits until its dependents are gone.
    AfterDependents,
    /// It is being deleted and waits until its dependents have let go of it.
    LeavesDependents,
    /// No object of this kind, namespace, name and uid is seen.
    Absent,
    /// Nobody can say: a kind that is not served, or a kind with namespaces where the dependent has
    /// none.
    Unresolvable,
}

/// What must be done; objects are named by their place in what was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Action<'a> {
    /// Delete a dependent that no owner keeps.
    Delete {
        /// Which object.
        at: usize,
        /// How its own dependents go.
        how: Propagation,
    },
    /// Change the references of an object to its owners.
    Rewrite {
        /// Which object.
        at: usize,
        /// Uids of owners that are taken off.
        without: Vec<&'a str>,
        /// The same, for owners that were not seen: that they are gone must be made certain.
        without_absent: Vec<&'a OwnerReference>,
        /// Uids of owners that do not wait for this object any more.
        unblocked: Vec<&'a str>,
    },
    /// Take the finalizer off an owner: no dependent holds it up any more.
    LetGo {
        /// Which object.
        at: usize,
        /// The finalizer.
        finalizer: &'static str,
    },
}

impl Action<'_> {
    /// Which object it changes.
    #[must_use]
    pub fn at(&self) -> usize {
        match self {
            Self::Delete { at, .. } | Self::Rewrite { at, .. } | Self::LetGo { at, .. } => *at,
        }
    }
}

/// How the dependents of what is deleted go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// After it.
    Background,
    /// Before it.
    Foreground,
    /// Not at all.
    Orphan,
}

/// Whether an object can have a part in any of this; [`reconcile`] needs to see all these.
#[must_use]
pub fn matters(metadata: &ObjectMeta) -> bool {
    metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty())
        || waits(metadata, FOREGROUND)
        || waits(metadata, ORPHAN)
        || holds(metadata, TRACKING)
}

/// What must be done about `objects`, all that matter. `presence` says of a dependent's reference what
/// is seen of its owner.
#[must_use]
pub fn reconcile<'a>(
    objects: &[&'a ObjectMeta],
    presence: impl Fn(&ObjectMeta, &OwnerReference) -> Presence,
) -> Vec<Action<'a>> {
    let waiting = |finalizer: &str| -> HashSet<&str> {
        objects.iter().filter(|object| waits(object, finalizer)).map(|object| uid(object)).collect()
    };
    let (foreground, orphaning) = (waiting(FOREGROUND), waiting(ORPHAN));
    let circles = circles(objects, &foreground);

    let mut actions = Vec::new();
    let mut blocked: HashSet<&str> = HashSet::new();
    let mut has_dependents: HashSet<&str> = HashSet::new();
    for object in objects {
        for owner in owners(object) {
            has_dependents.insert(&owner.uid);
            for (set, finalizer) in [(&orphaning, ORPHAN), (&foreground, FOREGROUND)] {
                if set.contains(owner.uid.as_str()) && holds_up(owner, finalizer) {
                    blocked.insert(&owner.uid);
                }
            }
        }
    }
    for (at, object) in objects.iter().copied().enumerate() {
        let (mut solid, mut without) = (false, Vec::new());
        let (mut absent, mut awaited) = (Vec::new(), Vec::new());
        for owner in owners(object) {
            match presence(object, owner) {
                Presence::LeavesDependents => without.push(owner.uid.as_str()),
                Presence::Stays | Presence::Unresolvable => solid = true,
                Presence::AfterDependents => awaited.push(owner.uid.as_str()),
                Presence::Absent => absent.push(owner),
            }
        }
        let unblocked = circles.get(&at).cloned().unwrap_or_default();
        let is_going = object.deletion_timestamp.is_some();
        if is_going {
            absent.clear();
        } else if solid || !without.is_empty() {
            // Another owner keeps it, so nobody who is going needs to wait for it.
            without.append(&mut awaited);
        } else if !awaited.is_empty() || !absent.is_empty() {
            let how = match () {
                () if holds(object, ORPHAN) => Propagation::Orphan,
                () if holds(object, FOREGROUND) => Propagation::Foreground,
                () if !awaited.is_empty() && has_dependents.contains(uid(object)) => {
                    Propagation::Foreground
                }
                () => Propagation::Background,
            };
            actions.push(Action::Delete { at, how });
            continue;
        }
        if !without.is_empty() || !unblocked.is_empty() || !absent.is_empty() {
            actions.push(Action::Rewrite { at, without, without_absent: absent, unblocked });
        }
    }
    for (at, object) in objects.iter().copied().enumerate() {
        for finalizer in [FOREGROUND, ORPHAN] {
            if waits(object, finalizer) && !blocked.contains(uid(object)) {
                actions.push(Action::LetGo { at, finalizer });
            }
        }
        // Nobody will count the end of a pod that no job has, or whose job is gone.
        let is_counted = match controller(object) {
            None => false,
            Some(owner) => {
                object.deletion_timestamp.is_none() || presence(object, owner) != Presence::Absent
            }
        };
        if holds(object, TRACKING) && !is_counted {
            actions.push(Action::LetGo { at, finalizer: TRACKING });
        }
    }
    actions
}

/// The references by which objects that wait for their dependents wait for each other in a circle:
/// place of the dependent, uids of the owners. No deletion ends those.
fn circles<'a>(
    objects: &[&'a ObjectMeta],
    foreground: &HashSet<&str>,
) -> HashMap<usize, Vec<&'a str>> {
    let mut edges: Vec<(usize, &str, &'a str)> = Vec::new();
    for (at, object) in objects.iter().copied().enumerate() {
        if !foreground.contains(uid(object)) {
            continue;
        }
        let held = owners(object).iter().filter(|owner| holds_up(owner, FOREGROUND));
        let held = held.filter(|owner| foreground.contains(owner.uid.as_str()));
        edges.extend(held.map(|owner| (at, uid(object), owner.uid.as_str())));
    }
    // Who holds up nobody, or is held up by nobody, is on no circle; what is left in the end is.
    loop {
        let dependents: HashSet<&str> = edges.iter().map(|(_, dependent, _)| *dependent).collect();
        let held_up: HashSet<&str> = edges.iter().map(|(_, _, owner)| *owner).collect();
        let before = edges.len();
        edges.retain(|(_, dependent, owner)| {
            held_up.contains(dependent) && dependents.contains(owner)
        });
        if edges.len() == before {
            break;
        }
    }
    let mut circles: HashMap<usize, Vec<&str>> = HashMap::new();
    for (at, _, owner) in edges {
        circles.entry(at).or_default().push(owner);
    }
    circles
}

/// Whether a dependent with this reference keeps its owner from being let go by the finalizer.
#[must_use]
pub fn holds_up(reference: &OwnerReference, finalizer: &str) -> bool {
    match finalizer {
        ORPHAN => true,
        FOREGROUND => reference.block_owner_deletion == Some(true),
        _ => false,
    }
}

/// Whether the object is being deleted and waits for its dependents in the way of this finalizer.
#[must_use]
pub fn waits(object: &ObjectMeta, finalizer: &str) -> bool {
    object.deletion_timestamp.is_some() && holds(object, finalizer)
}

fn holds(object: &ObjectMeta, finalizer: &str) -> bool {
    object.finalizers.iter().flatten().any(|held| held == finalizer)
}

fn owners(object: &ObjectMeta) -> &[OwnerReference] {
    object.owner_references.as_deref().unwrap_or_default()
}

fn uid(object: &ObjectMeta) -> &str {
    object.uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::super::table::cells;
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use proptest::prelude::*;

    /// `name`, `name<owner`, with `!foreground`, `!orphan`, `!tracked` or `!` for a deletion that is
    /// under way; `+finalizer` for one that is not. A reference to `owner?` is of a kind that is not
    /// served.
    fn object(words: &str) -> ObjectMeta {
        let (words, deletion) = match words.split_once(['!', '+']) {
            Some((before, how)) => (before, Some((words.contains('!'), how))),
            None => (words, None),
        };
        let mut parts = words.split('<');
        let name = parts.next().unwrap();
        let owners: Vec<_> = parts
            .map(|owner| OwnerReference {
                uid: owner.into(),
                block_owner_deletion: Some(true),
                controller: Some(true),
                ..OwnerReference::default()
            })
            .collect();
        ObjectMeta {
            name: Some(name.into()),
            uid: Some(name.into()),
            deletion_timestamp: deletion
                .and_then(|(going, _)| going.then_some(Time(Timestamp::UNIX_EPOCH))),
            finalizers: match deletion {
                Some((_, "foreground")) => Some(vec![FOREGROUND.into()]),
                Some((_, "tracked")) => Some(vec![TRACKING.into()]),
                Some((_, "orphan")) => Some(vec![ORPHAN.into()]),
                _ => None,
            },
            owner_references: (!owners.is_empty()).then_some(owners),
            ..ObjectMeta::default()
        }
    }

    fn presence(all: &[ObjectMeta]) -> impl Fn(&ObjectMeta, &OwnerReference) -> Presence {
        move |_, owner| {
            let found = all.iter().find(|object| uid(object) == owner.uid);
            match found {
                _ if owner.uid.ends_with('?') => Presence::Unresolvable,
                None => Presence::Absent,
                Some(found) if waits(found, FOREGROUND) => Presence::AfterDependents,
                Some(found) if waits(found, ORPHAN) => Presence::LeavesDependents,
                Some(_) => Presence::Stays,
            }
        }
    }

    fn said(all: &[ObjectMeta]) -> String {
        let held: Vec<&ObjectMeta> = all.iter().filter(|object| matters(object)).collect();
        let name = |at: usize| held[at].name.clone().unwrap();
        let words: Vec<String> = reconcile(&held, presence(all))
            .into_iter()
            .map(|action| match action {
                Action::Delete { at, how: Propagation::Background } => {
                    format!("delete {}", name(at))
                }
                Action::Delete { at, how } => format!("delete {} {how:?}", name(at)),
                Action::Rewrite { at, without, without_absent, unblocked } => {
                    let gone = without_absent.iter().map(|owner| owner.uid.as_str());
                    let off: Vec<_> = without.into_iter().chain(gone).collect();
                    let mut text = name(at);
                    if !off.is_empty() {
                        text = format!("{text} off {}", off.join("+"));
                    }
                    if !unblocked.is_empty() {
                        text = format!("{text} unblocks {}", unblocked.join("+"));
                    }
                    text
                }
                Action::LetGo { at, finalizer } => format!("let go {} {finalizer}", name(at)),
            })
            .collect();
        words.join(", ").replace(TRACKING, "tracking")
    }

    #[test]
    fn dependents_follow_their_last_owner_as_its_deletion_says() {
        let table = "
            objects                          | actions
            rc pod<rc                        |
            pod<gone                         | delete pod
            pod<crd?                         |
            pod<gone<crd?                    | pod off gone
            rc pod<gone<rc                   | pod off gone
            pod<gone!                        |
            pod<gone+orphan                  | delete pod Orphan
            rc!foreground pod<rc             | delete pod
            rc!foreground pod<rc leaf<pod    | delete pod Foreground
            rc!foreground pod<rc!            |
            rc!foreground                    | let go rc foregroundDeletion
            rc!orphan pod<rc                 | pod off rc
            rc!orphan pod<rc!                | pod off rc
            rc!orphan pod                    | let go rc orphan
            rc!orphan pod<rc<gone            | pod off rc+gone
            rc! pod<rc                       |
            job pod<job!tracked              |
            job pod<job+tracked              |
            pod<gone!tracked                 | let go pod tracking
            pod+tracked                      | let go pod tracking
            other rc!foreground pod<rc<other | pod off rc
            a<c!foreground b<a c<b           | delete b Foreground";
        for row in table.lines().skip(2) {
            let [words, expected] = cells(row);
            let all: Vec<_> = words.split_whitespace().map(object).collect();
            assert_eq!(said(&all), expected, "in row {row}");
        }
    }

    #[test]
    fn a_circle_of_owners_that_wait_for_each_other_is_cut_and_only_the_circle() {
        let table = "
            objects                                                  | actions
            a<c!foreground b<a!foreground c<b!foreground             | a unblocks c, b unblocks a, c unblocks b
            a<a!foreground                                           | a unblocks a
            top!foreground a<top<b!foreground b<a!foreground leaf<b! | a unblocks b, b unblocks a";
        for row in table.lines().skip(2) {
            let [words, expected] = cells(row);
            let all: Vec<_> = words.split_whitespace().map(object).collect();
            assert_eq!(said(&all), expected, "in row {row}");
        }
    }

    /// What the actions make of the objects, as far as this module cares: a deletion that nothing
    /// holds up is done at once.
    fn apply(all: &mut Vec<ObjectMeta>) -> bool {
        let seen = all.clone();
        let held: Vec<&ObjectMeta> = seen.iter().filter(|object| matters(object)).collect();
        let actions = reconcile(&held, presence(&seen));
        let changed = !actions.is_empty();
        for action in actions {
            let (Action::Delete { at, .. } | Action::Rewrite { at, .. } | Action::LetGo { at, .. }) =
                &action;
            let name = uid(held[*at]).to_owned();
            let Some(object) = all.iter_mut().find(|object| uid(object) == name) else { continue };
            match action {
                Action::Delete { how, .. } => {
                    object.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
                    let finalizers = object.finalizers.get_or_insert_default();
                    match how {
                        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
                        Propagation::Orphan => finalizers.push(ORPHAN.into()),
                        Propagation::Background => {}
                    }
                    finalizers.dedup();
                }
                Action::Rewrite { without, without_absent, unblocked, .. } => {
                    let owners = object.owner_references.get_or_insert_default();
                    owners.retain(|owner| {
                        !without.contains(&owner.uid.as_str())
                            && !without_absent.iter().any(|gone| gone.uid == owner.uid)
                    });
                    for owner in owners {
                        if unblocked.contains(&owner.uid.as_str()) {
                            owner.block_owner_deletion = Some(false);
                        }
                    }
                }
                Action::LetGo { finalizer, .. } => {
                    let finalizers = object.finalizers.get_or_insert_default();
                    finalizers.retain(|held| held != finalizer);
                }
            }
        }
        all.retain(|object| {
            object.deletion_timestamp.is_none()
                || object.finalizers.as_ref().is_some_and(|held| !held.is_empty())
        });
        changed
    }

    proptest! {
        #[test]
        fn whatever_owns_whatever_a_deletion_comes_to_its_end_and_nobody_with_an_owner_goes(
            owners in proptest::collection::vec(proptest::collection::vec(0..8usize, 0..3), 1..8),
            how in 0..3usize,
        ) {
            let name = |n: usize| format!("o{n}");
            let mut all: Vec<ObjectMeta> = owners
                .iter()
                .enumerate()
                .map(|(n, owners)| {
                    let mut words = name(n);
                    for owner in owners {
                        words = format!("{words}<{}", name(owner % 8));
                    }
                    object(&words)
                })
                .collect();
            // References to owners that never were are settled first.
            for _ in 0..40 {
                apply(&mut all);
            }
            prop_assert!(!apply(&mut all), "it comes to rest: {all:?}");
            let Some(first) = all.first_mut() else { return Ok(()) };
            let deleted = uid(first).to_owned();
            first.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            let finalizer = [None, Some(FOREGROUND), Some(ORPHAN)][how];
            first.finalizers = finalizer.map(|finalizer| vec![finalizer.to_owned()]);
            let kept = all.len();
            if finalizer.is_none() {
                all.remove(0);
            }
            for _ in 0..80 {
                apply(&mut all);
            }
            prop_assert!(!apply(&mut all), "it comes to rest: {all:?}");
            prop_assert!(all.iter().all(|object| uid(object) != deleted), "{all:?}");
            prop_assert!(all.iter().all(|object| object.deletion_timestamp.is_none()), "{all:?}");
            if finalizer == Some(ORPHAN) {
                prop_assert_eq!(all.len(), kept - 1, "orphans stay");
            }
            let left: HashSet<&str> = all.iter().map(uid).collect();
            for object in &all {
                for owner in super::owners(object) {
                    prop_assert!(left.contains(owner.uid.as_str()), "{all:?}");
                }
            }
        }
    }
}
