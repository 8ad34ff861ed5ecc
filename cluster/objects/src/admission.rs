//! What webhooks and policies have in common: what a write is to them, and which writes they are about.

mod asked;
mod passing;
mod rule;
mod within;

pub(crate) use asked::{Action, Asked};
pub(crate) use rule::Rule;
