//! Which pods are made to leave a node for one of a higher priority that fits nowhere. No IO, no clock.
//!
//! On a node all pods of a lower priority are taken away in thought, then given back, the most important first, as far as
//! the pod still fits: who is left goes. Of the nodes, that one is taken where budgets are violated least, then where the
//! most important of those that go is the least important, and so on as in Kubernetes. Members of training jobs never
//! leave so: the auction alone decides how many there are.

use super::filters;
use super::fit::NoVictims;
use super::parties::Pending;
use super::picture::Spent;
use super::scene::{Scene, Subject};
use impresario_client::protocol::resources::Resources;
use std::cmp::Reverse;
use std::sync::Arc;

/// So many nodes on which the pod could have room are compared.
const COMPARED: usize = 100;

/// Who is to leave which node.
#[derive(Debug, Clone, PartialEq)]
pub struct Victims {
    /// The index of the node.
    pub node: usize,
    /// The pods.
    pub pods: Vec<Arc<Pending>>,
}

/// How much is lost with them; less is better.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Loss {
    violations: usize,
    highest: i64,
    sum: i64,
    count: usize,
    /// When the first of the most important of them was created: rather one that came late.
    earliest: Reverse<i64>,
}

/// What a search goes by.
pub struct Rules<'r> {
    /// What is spent of the budgets.
    pub spent: &'r Spent,
    /// The node to begin with.
    pub start: usize,
    /// Whether it is too long ago that a pod was to have left by then.
    pub is_overdue: &'r dyn Fn(i64) -> bool,
    /// Whether the pod with this uid will not leave.
    pub stays: &'r dyn Fn(&str) -> bool,
    /// Whether nobody is to leave the node with this index.
    pub is_passed_by: &'r dyn Fn(usize) -> bool,
}

/// The best node for the pod, and who has to leave it. What was looked at is added to `looks`: nodes, and pods on them.
///
/// # Errors
/// Why there is none.
pub fn search(
    scene: &mut Scene<'_>,
    subject: &Subject<'_>,
    rules: &Rules<'_>,
    looks: &mut usize,
) -> Result<Victims, NoVictims> {
    let count = scene.nodes.len();
    let (mut best, mut compared): (Option<(Loss, Victims)>, _) = (None, 0);
    let (mut without, mut unhelpful) = (0, 0);
    let start = if count > 0 { rules.start % count } else { 0 };
    for node in (start..count).chain(0..start) {
        *looks += 1;
        // Not even if all were gone.
        let is_hopeless = (rules.is_passed_by)(node)
            || !scene.nodes[node].allocatable.covers(&subject.pod.requests)
            || filters::why(scene, subject, node).is_some_and(|why| !why.is_by_others());
        if is_hopeless {
            unhelpful += 1;
            continue;
        }
        match on_node(scene, subject, node, rules, looks) {
            Some((loss, victims)) => {
                compared += 1;
                if best.as_ref().is_none_or(|(least, _)| loss < *least) {
                    best = Some((loss, victims));
                }
                if compared >= COMPARED {
                    break;
                }
            }
            None => without += 1,
        }
    }
    best.map(|(_, victims)| victims).ok_or(NoVictims::Nobody { without, unhelpful })
}

/// Who has to leave the node.
fn on_node(
    scene: &mut Scene<'_>,
    subject: &Subject<'_>,
    node: usize,
    rules: &Rules<'_>,
    looks: &mut usize,
) -> Option<(Loss, Victims)> {
    let picture = scene.picture;
    let (mut candidates, mut leaving) = (Vec::new(), Vec::new());
    for (pod, leaves_by) in picture.residents(&scene.nodes[node].name) {
        if pod.priority >= subject.pod.priority || pod.is_member {
            continue;
        }
        match leaves_by {
            // Whoever will not go holds what it holds.
            Some(by) if (rules.is_overdue)(by) => {}
            None if (rules.stays)(&pod.uid) => {}
            Some(_) => leaving.push(pod.clone()),
            None if scene.condemned.contains(&pod.uid) => leaving.push(pod.clone()),
            None => candidates.push(pod.clone()),
        }
    }
    if candidates.is_empty() && leaving.is_empty() {
        return None;
    }
    *looks += candidates.len() + leaving.len();
    let before = scene.nodes[node].clone();
    let owed = picture.owed(&before);
    let mut room = Room { free: before.free.clone(), owed, taken: Resources::default() };
    for pod in candidates.iter().chain(&leaving) {
        take(scene, pod, node, &mut room);
    }
    let mut found = None;
    if filters::passes(scene, subject, node) {
        let (violating, others) = violating(scene, candidates.clone(), rules.spent);
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        let mut violations = 0;
        for (pod, violates) in violating
            .into_iter()
            .map(|pod| (pod, true))
            .chain(others.into_iter().map(|pod| (pod, false)))
        {
            give(scene, &pod, node, &mut room);
            if filters::passes(scene, subject, node) {
                stay.push(pod);
            } else {
                take(scene, &pod, node, &mut room);
                violations += usize::from(violates);
                go.push(pod);
            }
        }
        for pod in &stay {
            scene.shift(pod, node, -1);
        }
        found = Some((loss(violations, &go), Victims { node, pods: go }));
    }
    for pod in candidates.iter().chain(&leaving) {
        scene.shift(pod, node, 1);
    }
    scene.nodes[node] = before;
    found
}

/// What a node has when some are taken away. Whose pods hold more than it has to give has nothing free before that much is
/// given back, too.
struct Room {
    free: Resources,
    owed: Resources,
    taken: Resources,
}

impl Room {
    fn left(&self) -> Resources {
        let mut left = self.free.clone();
        left.add(&self.taken.without(&self.owed));
        left
    }
}

fn take(scene: &mut Scene<'_>, pod: &Pending, node: usize, room: &mut Room) {
    room.taken.add(&pod.requests);
    let here = scene.nodes[node].to_mut();
    here.free = room.left();
    here.host_ports.retain(|port| !pod.host_ports.contains(port));
    scene.shift(pod, node, -1);
}

fn give(scene: &mut Scene<'_>, pod: &Pending, node: usize, room: &mut Room) {
    room.taken.subtract(&pod.requests);
    let here = scene.nodes[node].to_mut();
    here.free = room.left();
    here.host_ports.extend(pod.host_ports.iter().cloned());
    scene.shift(pod, node, 1);
}

/// Those whose going a budget does not allow, and the others; the most important first.
fn violating(
    scene: &Scene<'_>,
    mut pods: Vec<Arc<Pending>>,
    spent: &Spent,
) -> (Vec<Arc<Pending>>, Vec<Arc<Pending>>) {
    pods.sort_by_key(|pod| (Reverse(pod.priority), pod.since));
    let mut spent = spent.clone();
    pods.into_iter().partition(|pod| scene.picture.budgets.spend(pod, &mut spent))
}

fn loss(violations: usize, go: &[Arc<Pending>]) -> Loss {
    let priorities = || go.iter().map(|pod| i64::from(pod.priority));
    let highest = priorities().max().unwrap_or(i64::MIN);
    let first = go.iter().filter(|pod| i64::from(pod.priority) == highest).map(|pod| pod.since);
    Loss {
        violations,
        highest,
        // So that more of a negative priority are more, too.
        sum: priorities().map(|priority| priority - i64::from(i32::MIN) + 1).sum(),
        count: go.len(),
        earliest: Reverse(first.min().unwrap_or(i64::MAX)),
    }
}

#[cfg(test)]
mod tests;
