//! What is wrong with a document so far, and how much looking is left.
//!
//! Work is counted: a schema of many alternatives over a long list would otherwise be looked at for
//! as long as somebody likes.

use super::place::Place;
use crate::cause::{Cause, CauseReason};
use crate::field::MAX_CAUSES;
use serde_json::Value;

/// So many looks at a value for one document.
pub const MAX_STEPS: u64 = 5_000_000;
/// The longest value that a cause quotes, in bytes.
const MAX_SHOWN: usize = 1024;
/// The longest list of what would be allowed, in bytes.
const MAX_CHOICES: usize = 10 * 1024;

/// The causes of one document.
#[derive(Debug)]
pub struct Findings {
    causes: Vec<Cause>,
    most: usize,
    steps_left: u64,
    /// Nobody reads the causes, only whether there are any.
    silent: bool,
}

impl Default for Findings {
    fn default() -> Self {
        Self { causes: Vec::new(), most: MAX_CAUSES, steps_left: MAX_STEPS, silent: false }
    }
}

impl Findings {
    /// One with so much work to do at most.
    pub fn within(steps: u64) -> Self {
        Self { steps_left: steps, ..Self::default() }
    }

    /// One that ends at the first cause, within the same work: for alternatives.
    pub fn probe(&mut self) -> Self {
        let steps_left = std::mem::take(&mut self.steps_left);
        Self { causes: Vec::new(), most: 1, steps_left, silent: true }
    }

    /// One of the same kind for a part, whose causes may yet be dropped.
    pub fn part(&mut self) -> Self {
        let most = self.most.saturating_sub(self.causes.len());
        let steps_left = std::mem::take(&mut self.steps_left);
        Self { causes: Vec::new(), most, steps_left, silent: self.silent }
    }

    /// Takes back the work of a part, and says whether nothing was wrong with it.
    pub fn ended(&mut self, part: &Self) -> bool {
        self.steps_left = part.steps_left;
        part.causes.is_empty()
    }

    /// Takes over what a part found.
    pub fn take(&mut self, part: Self) {
        self.steps_left = part.steps_left;
        let room = self.most.saturating_sub(self.causes.len());
        self.causes.extend(part.causes.into_iter().take(room));
    }

    /// Whether to go on: there is room for causes, and work left. When the work is used up, that is
    /// a cause itself.
    pub fn goes_on(&mut self, place: &Place<'_>) -> bool {
        if self.causes.len() >= self.most {
            return false;
        }
        if self.steps_left == 0 {
            let why = "takes too long to validate: shorten lists or simplify the schema";
            self.push(place, CauseReason::Invalid, format!("Invalid value: {why}"));
            self.most = 0;
            return false;
        }
        self.steps_left -= 1;
        true
    }

    /// Counts work that a step does besides.
    pub fn spend(&mut self, steps: usize) {
        self.steps_left = self.steps_left.saturating_sub(steps as u64);
    }

    /// A cause as it is.
    pub fn push(&mut self, place: &Place<'_>, reason: CauseReason, message: String) {
        self.say(place, reason, || message);
    }

    /// A cause whose text is made only where there is room for it and somebody who reads it: values
    /// are long, and most causes of a long list are never told.
    fn say(&mut self, place: &Place<'_>, reason: CauseReason, message: impl FnOnce() -> String) {
        if self.causes.len() >= self.most {
            return;
        }
        let cause = if self.silent {
            Cause { field: String::new(), reason, message: String::new() }
        } else {
            Cause { field: place.to_string(), reason, message: message() }
        };
        self.causes.push(cause);
    }

    /// The field must be given.
    pub fn required(&mut self, place: &Place<'_>, why: &str) {
        self.say(place, CauseReason::Required, || with("Required value", why));
    }

    /// The field may not be given.
    pub fn forbidden(&mut self, place: &Place<'_>, why: &str) {
        self.say(place, CauseReason::Forbidden, || with("Forbidden", why));
    }

    /// The value breaks a rule.
    pub fn invalid(&mut self, place: &Place<'_>, value: &Value, why: &str) {
        self.say(place, CauseReason::Invalid, || {
            with(&format!("Invalid value: {}", shown(value)), why)
        });
    }

    /// The value has the wrong type or form.
    pub fn type_invalid(&mut self, place: &Place<'_>, value: &Value, why: &str) {
        self.say(place, CauseReason::TypeInvalid, || {
            with(&format!("Invalid value: {}", shown(value)), why)
        });
    }

    /// The value is not one of a closed set, told in the order of the set.
    pub fn not_supported(&mut self, place: &Place<'_>, value: &Value, supported: &[Value]) {
        self.say(place, CauseReason::NotSupported, || {
            let what = format!("Unsupported value: {}", shown(value));
            with(&what, &format!("supported values: {}", choices(supported)))
        });
    }

    /// Another entry has the same key.
    pub fn duplicate(&mut self, place: &Place<'_>, value: &Value) {
        self.say(place, CauseReason::Duplicate, || format!("Duplicate value: {}", shown(value)));
    }

    /// The text is longer than allowed.
    pub fn too_long(&mut self, place: &Place<'_>, most: u64) {
        let why = format!("Too long: may not be more than {most} bytes");
        self.push(place, CauseReason::TooLong, why);
    }

    /// There are more entries than allowed.
    pub fn too_many(&mut self, place: &Place<'_>, count: usize, most: u64) {
        let why = format!("Too many: {count}: must have at most {most} items");
        self.push(place, CauseReason::TooMany, why);
    }

    /// Whether something is so wrong that nobody can say what else is: types, lengths, missing fields.
    pub fn is_blocked(&self) -> bool {
        self.causes.iter().any(|cause| {
            matches!(
                cause.reason,
                CauseReason::Required
                    | CauseReason::TooLong
                    | CauseReason::TooMany
                    | CauseReason::TypeInvalid
            )
        })
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    /// The causes in order.
    pub fn into_causes(self) -> Vec<Cause> {
        self.causes
    }
}

fn with(what: &str, why: &str) -> String {
    if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") }
}

/// A value as causes show it, cut where it is long; no more of it is looked at than is shown.
fn shown(value: &Value) -> String {
    if let Value::String(text) = value {
        return shown_text(text);
    }
    let mut beginning = Beginning(Vec::new());
    match serde_json::to_writer(&mut beginning, value) {
        Ok(()) => String::from_utf8_lossy(&beginning.0).into_owned(),
        // The value cannot fail, so the room did.
        Err(_) => {
            let text = String::from_utf8_lossy(&beginning.0);
            format!("{}...", text.trim_end_matches(char::REPLACEMENT_CHARACTER))
        }
    }
}

/// A text as causes show it, in quotes, cut where it is long.
pub fn shown_text(text: &str) -> String {
    if text.len() <= MAX_SHOWN {
        return format!("{text:?}");
    }
    format!("{:?}...", &text[..text.floor_char_boundary(MAX_SHOWN)])
}

/// Takes what is written until it has enough to show.
struct Beginning(Vec<u8>);

impl std::io::Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(MAX_SHOWN - self.0.len());
        self.0.extend_from_slice(&bytes[..taken]);
        if taken < bytes.len() {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The members of a closed set, as many as can be told.
fn choices(supported: &[Value]) -> String {
    let mut text = String::new();
    for (at, value) in supported.iter().enumerate() {
        if at > 0 {
            text.push_str(", ");
        }
        if text.len() > MAX_CHOICES {
            text.push_str("...");
            break;
        }
        // Text as it is and everything else as JSON, in quotes.
        text.push_str(&match value {
            Value::String(_) => shown(value),
            other => shown_text(&shown(other)),
        });
    }
    text
}
