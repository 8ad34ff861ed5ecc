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

/// The best node for the pod, looked for from `start` on, and who has to leave it. `is_overdue` says of those that were to
/// have left by then whether that is too long ago.
///
/// # Errors
/// Why there is none.
pub fn search(
    scene: &mut Scene<'_>,
    subject: &Subject<'_>,
    spent: &Spent,
    start: usize,
    is_overdue: &dyn Fn(i64) -> bool,
) -> Result<Victims, NoVictims> {
    let count = scene.nodes.len();
    let (mut best, mut compared): (Option<(Loss, Victims)>, _) = (None, 0);
    let (mut without, mut unhelpful) = (0, 0);
    let start = if count > 0 { start % count } else { 0 };
    for node in (start..count).chain(0..start) {
        let is_hopeless = filters::why(scene, subject, node).is_some_and(|why| !why.is_by_others());
        if is_hopeless {
            unhelpful += 1;
            continue;
        }
        match on_node(scene, subject, node, spent, is_overdue) {
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
    spent: &Spent,
    is_overdue: &dyn Fn(i64) -> bool,
) -> Option<(Loss, Victims)> {
    let picture = scene.picture;
    let (mut candidates, mut leaving) = (Vec::new(), Vec::new());
    for (pod, leaves_by) in picture.residents(&scene.nodes[node].name) {
        if pod.priority >= subject.pod.priority || pod.is_member {
            continue;
        }
        match leaves_by {
            // Whoever will not go holds what it holds.
            Some(by) if is_overdue(by) => {}
            Some(_) => leaving.push(pod.clone()),
            None if scene.condemned.contains(&pod.uid) => leaving.push(pod.clone()),
            None => candidates.push(pod.clone()),
        }
    }
    if candidates.is_empty() && leaving.is_empty() {
        return None;
    }
    let before = scene.nodes[node].clone();
    for pod in candidates.iter().chain(&leaving) {
        take(scene, pod, node);
    }
    let mut found = None;
    if filters::passes(scene, subject, node) {
        let (violating, others) = violating(scene, candidates.clone(), spent);
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        let mut violations = 0;
        for (pod, violates) in violating
            .into_iter()
            .map(|pod| (pod, true))
            .chain(others.into_iter().map(|pod| (pod, false)))
        {
            give(scene, &pod, node);
            if filters::passes(scene, subject, node) {
                stay.push(pod);
            } else {
                take(scene, &pod, node);
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

fn take(scene: &mut Scene<'_>, pod: &Pending, node: usize) {
    let here = scene.nodes[node].to_mut();
    here.free.add(&pod.requests);
    here.host_ports.retain(|port| !pod.host_ports.contains(port));
    scene.shift(pod, node, -1);
}

fn give(scene: &mut Scene<'_>, pod: &Pending, node: usize) {
    let here = scene.nodes[node].to_mut();
    here.free.subtract(&pod.requests);
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
