//! Which pods of a stateful set come and go now.
//!
//! First each place gets its pod, then those go that have no place, then those of an old template. In order, each step waits
//! for the pod before it; else as many steps are taken at once as there are, up to a bound.

use super::super::part::{Round, part};
use super::super::pod_view::PodView as _;
use super::super::replicas::BURST;
use super::failures::Failures;
use super::members::{Member, Shape};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

/// What pods are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Revisions<'a> {
    /// What they come to be.
    pub(super) update: &'a ControllerRevision,
    /// What they are until they are replaced, and where they are not to be.
    pub(super) current: &'a ControllerRevision,
    /// How often a name had to be drawn anew.
    pub(super) collisions: Option<i32>,
}

impl Revisions<'_> {
    pub(super) fn update_name(&self) -> &str {
        self.update.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn current_name(&self) -> &str {
        self.current.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn name(&self, of: Of) -> &str {
        match of {
            Of::Current => self.current_name(),
            Of::Update => self.update_name(),
        }
    }
}

/// Which of the two a pod is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Current,
    Update,
}

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Action<'a> {
    /// A pod comes to this place.
    Create(i64, Of),
    /// A pod goes.
    Delete(&'a Pod),
    /// A pod that ended is kept until then.
    Keep(Timestamp),
}

/// How pods are replaced by those of a new template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    /// When somebody deletes them.
    OnDelete,
    /// One after the other from the last, except the first so many.
    Rolling {
        /// So many of the first stay; none where the set does not say.
        partition: Option<i64>,
        /// So many may be missing at once.
        unavailable: usize,
    },
}

fn strategy(spec: &StatefulSetSpec, shape: &Shape) -> Strategy {
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|it| it.type_.as_deref()) == Some("OnDelete") {
        return Strategy::OnDelete;
    }
    let rolling = strategy.and_then(|it| it.rolling_update.as_ref());
    let whole = i32::try_from(shape.count()).unwrap_or(i32::MAX);
    let most = rolling.and_then(|it| it.max_unavailable.as_ref());
    let most = most.map_or(1, |most| part(most, whole, Round::Up).max(1));
    Strategy::Rolling {
        partition: rolling.and_then(|it| it.partition).map(|it| i64::from(it.max(0))),
        unavailable: usize::try_from(most).unwrap_or(1),
    }
}

/// Whether pods come and go one after the other.
fn is_ordered(spec: &StatefulSetSpec) -> bool {
    spec.pod_management_policy.as_deref() != Some("Parallel")
}

/// What is to be done. No pod comes to a place where one is, whatever its state.
pub(super) fn plan<'a>(
    spec: &StatefulSetSpec,
    shape: &Shape,
    members: &[Member<'a>],
    (revisions, failures): (&Revisions<'_>, &Failures),
    now: Timestamp,
) -> Vec<Action<'a>> {
    let look = Look {
        shape,
        revisions,
        failures,
        strategy: strategy(spec, shape),
        there: members.iter().map(|member| (member.ordinal, *member)).collect(),
        now,
    };
    let mut actions = Vec::new();
    let is_done = if is_ordered(spec) {
        look.fill_in_order(&mut actions) && look.empty_in_order(&mut actions)
    } else {
        look.fill(&mut actions);
        look.empty(&mut actions);
        true
    };
    if is_done {
        look.update(&mut actions);
    }
    actions
}

/// What is looked at.
struct Look<'a, 'b> {
    shape: &'b Shape,
    revisions: &'b Revisions<'b>,
    failures: &'b Failures,
    strategy: Strategy,
    there: BTreeMap<i64, Member<'a>>,
    now: Timestamp,
}

impl<'a> Look<'a, '_> {
    fn is_available(&self, member: &Member<'_>) -> bool {
        member.is_available(self.shape.patience, self.now)
    }

    /// Those at places of the set.
    fn placed(&self) -> impl DoubleEndedIterator<Item = &Member<'a>> {
        self.there.range(self.shape.places.clone()).map(|(_, member)| member)
    }

    /// Those that have no place, the last first.
    fn surplus(&self) -> impl Iterator<Item = &Member<'a>> {
        self.there.values().rev().filter(|member| !self.shape.has(member.ordinal))
    }

    /// Of which template a pod at a place is to be made.
    fn of(&self, ordinal: i64) -> Of {
        let index = ordinal - self.shape.places.start;
        match self.strategy {
            Strategy::Rolling { partition: Some(partition), .. } if index < partition => {
                Of::Current
            }
            // Where no part of them is said, it stays what it was until it is its turn. Once the new template works that makes no
            // difference, and before it is tried nobody knows that the old one still does.
            Strategy::Rolling { partition: None, .. }
                if self.is_old_after(ordinal) && self.is_in_doubt() =>
            {
                Of::Current
            }
            Strategy::OnDelete | Strategy::Rolling { .. } => Of::Update,
        }
    }

    /// Whether one after this place is still of an old template.
    fn is_old_after(&self, ordinal: i64) -> bool {
        self.placed().any(|member| member.ordinal > ordinal && self.is_old(member))
    }

    fn is_old(&self, member: &Member<'_>) -> bool {
        member.revision() != Some(self.revisions.update_name())
    }

    /// Whether the new template has been tried and does not work, or not yet.
    fn is_in_doubt(&self) -> bool {
        self.placed().any(|member| !self.is_old(member) && !member.is_healthy())
    }

    /// Whether another pod in the place of this one would be just such a one again: to replace it leads nowhere.
    fn is_made_again(&self, member: &Member<'_>) -> bool {
        self.of(member.ordinal) == Of::Current
            && member.revision() == Some(self.revisions.current_name())
    }

    /// Whether a pod that is not ready keeps the set from ever going on: it is to be replaced anyway, and either nobody asks any more
    /// for what it is, or nothing of its template works, and nothing speaks against the new one. Where that was tried and does
    /// not work, an old pod that is not ready for a moment is the better one.
    fn is_given_up(&self, member: &Member<'_>) -> bool {
        let Strategy::Rolling { partition, .. } = self.strategy else { return false };
        let index = member.ordinal - self.shape.places.start;
        if !self.is_old(member) || member.is_healthy() || index < partition.unwrap_or(0) {
            return false;
        }
        let mut alike = self.placed().filter(|other| other.revision() == member.revision());
        member.revision() != Some(self.revisions.current_name())
            || (!alike.any(Member::is_healthy) && !self.is_in_doubt())
    }

    /// What becomes of a pod that ended: it makes way for the next when it has been kept for long enough. What failed of another
    /// template says nothing of that.
    fn renew(&self, member: &Member<'a>) -> Action<'a> {
        let next = self.revisions.name(self.of(member.ordinal));
        let kept = self.failures.kept_until(member.ordinal);
        match kept.filter(|_| member.revision() == Some(next)) {
            Some(until) => Action::Keep(until),
            None => Action::Delete(member.pod),
        }
    }

    /// Brings pods to places one after the other. Whether all are there and available.
    fn fill_in_order(&self, actions: &mut Vec<Action<'a>>) -> bool {
        for ordinal in self.shape.places.clone() {
            let Some(member) = self.there.get(&ordinal) else {
                actions.push(Action::Create(ordinal, self.of(ordinal)));
                return false;
            };
            if member.pod.terminating() {
                return false;
            }
            if member.pod.finished() {
                actions.push(self.renew(member));
                return false;
            }
            if self.is_given_up(member) {
                actions.push(Action::Delete(member.pod));
                return false;
            }
            if !self.is_available(member) {
                return false;
            }
        }
        true
    }

    /// Takes away the last that has no place, once those after it are gone. Whether none is left. That it waits for those before it
    /// which are not ready, although they are to go too, is what is promised of the order (Kubernetes conformance tests,
    /// "Scaling should happen in predictable order and halt if any stateful pod is unhealthy").
    fn empty_in_order(&self, actions: &mut Vec<Action<'a>>) -> bool {
        let Some(last) = self.surplus().next() else { return true };
        let first_unhealthy = self.surplus().filter(|member| !member.is_healthy()).last();
        // The one that is not ready goes when all before it are: then it is the first such.
        let is_first = first_unhealthy.is_none_or(|first| first.ordinal == last.ordinal);
        // One that ended never is.
        let may_go = self.is_available(last) || is_first || last.pod.finished();
        if !last.pod.terminating() && may_go {
            actions.push(Action::Delete(last.pod));
        }
        false
    }

    /// Brings pods to all places, and takes away those that ended.
    fn fill(&self, actions: &mut Vec<Action<'a>>) {
        let ended = self.placed().filter(|member| member.pod.finished());
        let ended = ended.filter(|member| !member.pod.terminating()).take(BURST);
        actions.extend(ended.map(|member| self.renew(member)));
        let missing = self.shape.places.clone().filter(|ordinal| !self.there.contains_key(ordinal));
        actions
            .extend(missing.take(BURST).map(|ordinal| Action::Create(ordinal, self.of(ordinal))));
    }

    /// Takes away all that have no place.
    fn empty(&self, actions: &mut Vec<Action<'a>>) {
        let surplus = self.surplus().filter(|member| !member.pod.terminating()).take(BURST);
        actions.extend(surplus.map(|member| Action::Delete(member.pod)));
    }

    /// Replaces pods of an old template from the last on, so many that no more are missing than may be.
    fn update(&self, actions: &mut Vec<Action<'a>>) {
        let Strategy::Rolling { partition, unavailable: most } = self.strategy else { return };
        let ends = |member: &Member<'_>| member.pod.terminating() || member.pod.finished();
        // Those that are on their way: they are missing, or come.
        let mut moving = self.shape.count() - self.placed().count();
        let mut out = moving;
        for member in self.placed().filter(|member| !self.is_available(member)) {
            out += 1;
            moving += usize::from(ends(member) || !self.is_old(member));
        }
        let first = self.shape.places.start.saturating_add(partition.unwrap_or(0));
        let old = self.placed().rev().take_while(|member| member.ordinal >= first);
        let replaced = |member: &&Member<'_>| {
            self.is_old(member) && !ends(member) && !self.is_made_again(member)
        };
        for member in old.filter(replaced) {
            let is_available = self.is_available(member);
            // One that is not available is missing anyway.
            let counted = if is_available { out } else { moving };
            if counted >= most {
                continue;
            }
            out += usize::from(is_available);
            moving += 1;
            actions.push(Action::Delete(member.pod));
        }
    }
}
