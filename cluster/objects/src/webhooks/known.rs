//! The webhooks that there are, as this process sees them.

use super::hook::Hook;
use super::places::Places;
use crate::admission::{Asked, Rule};
use crate::followed::Followed;
use impresario_api::rules::expressions::is_exempt;
use impresario_client::objects::Reader;
use impresario_client::objects::stored::text;
use serde_json::Value;
use std::sync::Arc;

/// The group of the configurations.
const GROUP: &str = "admissionregistration.k8s.io";

/// Which of the two turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// They may change the object, one after the other.
    Mutating,
    /// They only say yes or no, all at once.
    Validating,
}

impl Turn {
    fn plural(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingwebhookconfigurations",
            Self::Validating => "validatingwebhookconfigurations",
        }
    }
}

/// A webhook, or what cannot be read as one but asks to be told all the same.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name.
    pub(super) name: String,
    /// What it asks to be told of.
    pub(super) rules: Vec<Rule>,
    /// Whether a request goes on without it.
    pub(super) fails_open: bool,
    /// The webhook, or why it cannot be called.
    pub(super) hook: Result<Hook, String>,
    /// Its own places for questions.
    pub(super) places: Places,
}

impl Entry {
    fn read(entry: &Value) -> Self {
        Self {
            name: text(entry, "/name").to_owned(),
            rules: entry["rules"].as_array().into_iter().flatten().map(Rule::read).collect(),
            fails_open: text(entry, "/failurePolicy") == "Ignore",
            hook: Hook::read(entry),
            places: Places::of_one(),
        }
    }

    /// Whether one of its rules is about this.
    pub(super) fn matches(&self, asked: &Asked<'_>) -> bool {
        self.rules.iter().any(|rule| rule.covers(asked))
    }
}

/// The webhooks of a cluster, followed. Cheap to clone; ends with the last clone.
#[derive(Debug, Clone)]
pub struct Webhooks(Arc<Following>);

#[derive(Debug)]
struct Following {
    mutating: Followed<Vec<Arc<Entry>>>,
    validating: Followed<Vec<Arc<Entry>>>,
    places: Places,
}

impl Webhooks {
    /// Begins to follow. Must be called within a tokio runtime.
    #[must_use]
    pub fn follow(objects: &Reader) -> Self {
        let begin = |turn: Turn| Followed::follow(objects, GROUP, turn.plural(), read);
        let (mutating, validating) = (begin(Turn::Mutating), begin(Turn::Validating));
        Self(Arc::new(Following { mutating, validating, places: Places::of_all() }))
    }

    /// Whether somebody may ask to be told of this: for certain not, where it is known that nobody does.
    pub(super) fn may_be_told(&self, turn: Turn, asked: &Asked<'_>) -> bool {
        !is_exempt(asked.resource)
            && self
                .turn(turn)
                .all()
                .is_none_or(|all| all.values().flatten().any(|entry| entry.matches(asked)))
    }

    /// Those that ask to be told of this, in the order of their configurations' names and of their places there; nothing
    /// where the configurations have not been read yet.
    pub(super) async fn told(&self, turn: Turn, asked: &Asked<'_>) -> Option<Vec<Arc<Entry>>> {
        if is_exempt(asked.resource) {
            return Some(Vec::new());
        }
        let all = self.turn(turn).read().await?;
        let told = all.values().flatten().filter(|entry| entry.matches(asked));
        Some(told.cloned().collect())
    }

    /// The places for questions to all of them together.
    pub(super) fn places(&self) -> &Places {
        &self.0.places
    }

    fn turn(&self, turn: Turn) -> &Followed<Vec<Arc<Entry>>> {
        match turn {
            Turn::Mutating => &self.0.mutating,
            Turn::Validating => &self.0.validating,
        }
    }
}

fn read(name: &str, object: &Value) -> Vec<Arc<Entry>> {
    let hooks = object["webhooks"].as_array().into_iter().flatten();
    let hooks: Vec<Arc<Entry>> = hooks.map(|hook| Arc::new(Entry::read(hook))).collect();
    for entry in &hooks {
        let broken = entry.hook.as_ref().map_or_else(Some, |hook| hook.target.as_ref().err());
        if let Some(why) = broken {
            tracing::warn!(configuration = name, webhook = entry.name, "cannot be called: {why}");
        }
    }
    hooks
}
