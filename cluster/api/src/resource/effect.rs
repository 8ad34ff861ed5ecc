//! What a kind is good for: who acts on its objects, if anybody does.

use std::borrow::Cow;

/// What becomes of the objects of a kind besides being stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Somebody acts on them, or reads them: who, in words.
    ActedOn(Cow<'static, str>),
    /// Nobody acts on them yet: they are validated, stored, listed and watched, and no more.
    Stored,
    /// The same, of a kind that would be taken for a protection or a promise: what does not happen, in words. Whoever
    /// writes such an object is told.
    NotEnforced(Cow<'static, str>),
}

impl Effect {
    /// Acted on by these, in words of the program.
    pub const fn by(who: &'static str) -> Self {
        Self::ActedOn(Cow::Borrowed(who))
    }

    /// Not enforced, in words of the program.
    pub const fn missing(what: &'static str) -> Self {
        Self::NotEnforced(Cow::Borrowed(what))
    }
}
