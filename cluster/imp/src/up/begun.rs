//! What a command has begun, so that it can be undone when somebody interrupts it.

use super::error::UpError;
use super::start::start;
use crate::down::{end_process, end_started};
use crate::layout::NodeDir;
use parking_lot::Mutex;
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

    pub(super) fn note_end(&self, node: &NodeDir) {
        self.0.lock().ended.push(node.clone());
    }

    /// Undoes it for a command that is interrupted: what it has started ends, what it has ended is started. What was done,
    /// in words.
    pub async fn undo(&self) -> Result<&'static str, UpError> {
        let Begun { started, ended } = std::mem::take(&mut *self.0.lock());
        // Whatever becomes of the others: what ran before runs again.
        let mut undone = end_started(&started).await.map_err(UpError::from);
        for node in &ended {
            // It was asked to, and may not have ended yet.
            let ended = end_process(node).await.map_err(UpError::from);
            undone = undone.and(ended.and_then(|()| start(node)));
        }
        undone?;
        Ok(match (started.is_empty(), ended.is_empty()) {
            (true, true) => "nothing was started",
            (false, true) => "the nodes that this command had started are ended",
            (true, false) => "the nodes that this command had ended are started again",
            (false, false) => {
                "the nodes that this command had started are ended, those that it had ended run again"
            }
        })
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
