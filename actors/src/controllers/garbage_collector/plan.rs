//! What is garbage, from metadata alone.

use super::super::job::plan::TRACKING;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::HashSet;

/// The finalizer of an object whose dependents go first.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents stay.
pub const ORPHAN: &str = "orphan";

/// An object as the collector sees it.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// Its metadata.
    pub metadata: &'a ObjectMeta,
}

/// What must be done; objects are named by their place in what was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// Delete a dependent: no owner is left, or one waits for it in a foreground deletion.
    Delete {
        /// Which object.
        at: usize,
        /// Whether its own dependents go first too.
        foreground: bool,
    },
    /// Take the reference to an owner off, whose deletion leaves its dependents alone.
    Disown {
        /// Which object.
        at: usize,
        /// The owner's uid.
        owner: &'a str,
    },
    /// Take the finalizer off an owner: no dependent holds it up any more.
    LetGo {
        /// Which object.
        at: usize,
        /// The finalizer.
        finalizer: &'static str,
    },
}

/// What must be done about `objects`, all that there are.
#[must_use]
pub fn reconcile<'a>(objects: &[Held<'a>]) -> Vec<Action<'a>> {
    let uid = |object: &Held<'a>| object.metadata.uid.as_deref().unwrap_or_default();
    let present: HashSet<&str> = objects.iter().map(uid).collect();
    let waiting = |finalizer: &str| -> HashSet<&str> {
        objects.iter().filter(|object| waits(**object, finalizer)).map(uid).collect()
    };
    let (foreground, orphaning) = (waiting(FOREGROUND), waiting(ORPHAN));

    let mut actions = Vec::new();
    let mut blocked: HashSet<&str> = HashSet::new();
    for (at, object) in objects.iter().enumerate() {
        let owners = object.metadata.owner_references.as_deref().unwrap_or_default();
        let mut disowned = false;
        for owner in owners {
            if orphaning.contains(owner.uid.as_str()) {
                disowned = true;
                actions.push(Action::Disown { at, owner: &owner.uid });
            }
            let waits = |set: &HashSet<&str>, finalizer| {
                set.contains(owner.uid.as_str()) && holds_up(owner, finalizer)
            };
            if waits(&orphaning, ORPHAN) || waits(&foreground, FOREGROUND) {
                blocked.insert(&owner.uid);
            }
        }
        if owners.is_empty() || disowned || object.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let solid = owners.iter().any(|owner| {
            present.contains(owner.uid.as_str()) && !foreground.contains(owner.uid.as_str())
        });
        let awaited = owners.iter().any(|owner| foreground.contains(owner.uid.as_str()));
        if !solid {
            actions.push(Action::Delete { at, foreground: awaited });
        } else if awaited {
            // Another owner keeps it: the one that waits must not wait for this one.
            let waiting = owners.iter().filter(|owner| foreground.contains(owner.uid.as_str()));
            actions.extend(waiting.map(|owner| Action::Disown { at, owner: &owner.uid }));
        }
    }
    for (at, object) in objects.iter().enumerate() {
        for finalizer in [FOREGROUND, ORPHAN] {
            if waits(*object, finalizer) && !blocked.contains(uid(object)) {
                actions.push(Action::LetGo { at, finalizer });
            }
        }
        // Nobody will count the end of a pod whose job is gone.
        let owners = object.metadata.owner_references.as_deref().unwrap_or_default();
        let controller = owners.iter().find(|owner| owner.controller == Some(true));
        let counted = controller.is_some_and(|owner| present.contains(owner.uid.as_str()));
        if waits(*object, TRACKING) && !counted {
            actions.push(Action::LetGo { at, finalizer: TRACKING });
        }
    }
    actions
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

fn waits(object: Held<'_>, finalizer: &str) -> bool {
    object.metadata.deletion_timestamp.is_some()
        && object.metadata.finalizers.iter().flatten().any(|held| held == finalizer)
}

#[cfg(test)]
mod tests {
    use super::super::super::table::cells;
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    /// `name`, `name<owner`, with `!foreground`, `!orphan`, `!tracked` or `!` for a deletion that is
    /// under way.
    fn object(words: &str) -> ObjectMeta {
        let (words, deletion) = match words.split_once('!') {
            Some((words, how)) => (words, Some(how)),
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
            deletion_timestamp: deletion.map(|_| Time(Timestamp::UNIX_EPOCH)),
            finalizers: match deletion {
                Some("foreground") => Some(vec![FOREGROUND.into()]),
                Some("tracked") => Some(vec![TRACKING.into()]),
                Some("orphan") => Some(vec![ORPHAN.into()]),
                _ => None,
            },
            owner_references: (!owners.is_empty()).then_some(owners),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn dependents_follow_their_last_owner_as_its_deletion_says() {
        let table = "
            objects                      | actions
            rc pod<rc                    |
            pod<gone                     | delete pod
            rc pod<gone<rc               |
            pod<gone!                    |
            rc!foreground pod<rc         | delete pod first
            rc!foreground pod<rc!        |
            rc!foreground                | let go rc
            rc!orphan pod<rc             | disown pod
            rc!orphan pod                | let go rc
            rc! pod<rc                   |
            job pod<job!tracked          |
            pod<gone!tracked             | let go pod
            other rc!foreground pod<rc<other | disown pod";
        for row in table.lines().skip(2) {
            let [words, expected] = cells(row);
            let all: Vec<_> = words.split_whitespace().map(object).collect();
            let held: Vec<_> = all.iter().map(|metadata| Held { metadata }).collect();
            let name = |at: usize| all[at].name.clone().unwrap();
            let said: Vec<String> = reconcile(&held)
                .into_iter()
                .map(|action| match action {
                    Action::Delete { at, foreground: true } => format!("delete {} first", name(at)),
                    Action::Delete { at, foreground: false } => format!("delete {}", name(at)),
                    Action::Disown { at, .. } => format!("disown {}", name(at)),
                    Action::LetGo { at, .. } => format!("let go {}", name(at)),
                })
                .collect();
            assert_eq!(said.join(", "), expected, "in row {row}");
        }
    }
}
