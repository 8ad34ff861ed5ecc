//! What a command has begun, so that it can be undone when somebody interrupts it.

use super::away::take_away;
use super::error::UpError;
use super::start::start;
use crate::down::{end_process, end_started};
use crate::layout::{HollowDir, NodeDir};
use nix::fcntl::Flock;
use parking_lot::Mutex;
use std::fs::File;
use std::sync::Arc;

/// What a command has done to nodes so far.
#[derive(Debug, Clone, Default)]
pub struct Started(Arc<Mutex<Begun>>);

#[derive(Debug, Default)]
struct Begun {
    /// Those that it has started, and that did not run before.
    started: Vec<NodeDir>,
    /// Those that ran before and that it has ended, to start them again.
    ended: Vec<NodeDir>,
    /// Hollow nodes that it has made.
    made: Vec<HollowDir>,
    /// Whether it takes hollow nodes away.
    takes_away: bool,
    /// What lets it alone change the cluster: nobody comes between what it did and its undoing.
    alone: Option<Flock<File>>,
}

impl Started {
    pub(super) fn note(&self, node: &NodeDir) {
        let mut begun = self.0.lock();
        match begun.ended.iter().position(|ended| ended.path() == node.path()) {
            // It runs again, as before.
            Some(place) => drop(begun.ended.swap_remove(place)),
            None => begun.started.push(node.clone()),
        }
    }

    pub(super) fn note_made(&self, group: &HollowDir) {
        self.0.lock().made.push(group.clone());
    }

    pub(super) fn note_taking_away(&self) {
        self.0.lock().takes_away = true;
    }

    /// Keeps others from changing the cluster until it is done, or undone.
    pub(super) fn hold(&self, alone: Option<Flock<File>>) {
        self.0.lock().alone = alone;
    }

    /// It is done.
    pub(super) fn release(&self) {
        self.0.lock().alone = None;
    }

    pub(super) fn note_end(&self, node: &NodeDir) {
        self.0.lock().ended.push(node.clone());
    }

    /// Undoes it for a command that is interrupted: what it has made goes, what it has started ends, what it has ended is
    /// started. What was done, in words.
    pub async fn undo(&self) -> Result<String, UpError> {
        let Begun { started, ended, made, takes_away, alone } = std::mem::take(&mut *self.0.lock());
        let mut undone = Ok(());
        // While the nodes that take their objects away still run.
        let is_made = |node: &&NodeDir| made.iter().any(|it| it.process().path() == node.path());
        let (hollow, started): (Vec<_>, Vec<_>) = started.into_iter().partition(|it| is_made(&it));
        undone = undone.and(end_started(&hollow).await.map_err(UpError::from));
        undone = undone.and(take_away(&made).await.map(drop));
        // Whatever becomes of the others: what ran before runs again.
        undone = undone.and(end_started(&started).await.map_err(UpError::from));
        for node in &ended {
            // It was asked to, and may not have ended yet.
            let ended = end_process(node).await.map_err(UpError::from);
            undone = undone.and(ended.and_then(|()| start(node)));
        }
        drop(alone);
        undone?;
        let words = [
            (!made.is_empty(), "the hollow nodes that this command had made are gone"),
            (!started.is_empty(), "the nodes that this command had started are ended"),
            (!ended.is_empty(), "the nodes that this command had ended are started again"),
            (takes_away, "hollow nodes may be left, `imp up --hollow 0` takes them away"),
        ];
        let words: Vec<_> = words.into_iter().filter(|(done, _)| *done).map(|(_, it)| it).collect();
        Ok(if words.is_empty() { "nothing was started".to_owned() } else { words.join("; ") })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ready::name_of;
    use super::*;

    #[test]
    fn who_is_interrupted_ends_what_it_started_and_not_what_ran_before() {
        let begun = Started::default();
        let node = |name: &str| NodeDir::new(format!("/nowhere/{name}").into());
        let names = |of: &[NodeDir]| of.iter().map(name_of).collect::<Vec<_>>();
        begun.note_end(&node("one"));
        begun.note_end(&node("two"));
        // Two was on its way down, and is up again; three is new.
        begun.note(&node("two"));
        begun.note(&node("three"));
        let state = begun.0.lock();
        assert_eq!(names(&state.started), ["three"]);
        assert_eq!(names(&state.ended), ["one"]);
    }
}
