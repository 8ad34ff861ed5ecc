//! What objects of a kind look like: by a message of the tables, or by a schema that came at run time.

use crate::cause::Cause;
use crate::schema::{self, Message};
use crate::structural::node::Node;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// The schema of a kind that is none of the tables', such as one that a user defines.
///
/// It is shown whole objects. What their `apiVersion`, `kind` and `metadata` may be is settled elsewhere: it
/// neither fills these in nor takes anything out of them.
pub trait DynamicSchema: Send + Sync {
    /// Fills in what is not given; must be idempotent.
    fn default(&self, object: &mut Value);

    /// Takes out what the schema does not know; must be idempotent.
    fn prune(&self, object: &mut Value);

    /// What is wrong with an object, its metadata aside; with a change, where there is an old one.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause>;

    /// The schema in the words of OpenAPI v3, for what reads them: an object with `type` and `properties`. No `$ref`
    /// stands in it but of `ObjectMeta`.
    fn openapi(&self) -> Value;

    /// The same in the words of OpenAPI v2, without what these cannot say.
    fn openapi_v2(&self) -> Value {
        self.openapi()
    }

    /// The schema itself, by which fields are owned one by one. Where there is none, every field is owned by itself and
    /// every list as a whole.
    fn root(&self) -> Option<&Node> {
        None
    }
}

/// What objects of a kind look like.
#[derive(Clone)]
pub enum Schema {
    /// A message of the tables. Protobuf and strategic merge patches are read by it.
    Table(&'static Message),
    /// A schema of its own: JSON and YAML alone, and lists without merge keys.
    Structural(Arc<dyn DynamicSchema>),
}

/// A [`Schema`], looked at.
#[derive(Clone, Copy)]
pub enum Looks<'a> {
    /// A message of the tables.
    Table(&'static Message),
    /// A schema of its own.
    Structural(&'a dyn DynamicSchema),
}

impl Schema {
    /// The message of this dotted name, which is in the tables: the rows of the program name no other.
    #[expect(clippy::expect_used, reason = "a test makes every row of the program")]
    pub(crate) fn table(name: &str) -> Self {
        Self::Table(
            schema::message(name).expect("a row of the program names a message of the tables"),
        )
    }

    /// The same, to be looked at.
    pub fn looks(&self) -> Looks<'_> {
        match self {
            Self::Table(message) => Looks::Table(message),
            Self::Structural(schema) => Looks::Structural(&**schema),
        }
    }

    /// The message, where there is one.
    pub fn message(&self) -> Option<&'static Message> {
        self.looks().message()
    }
}

impl Looks<'_> {
    /// The message, where there is one.
    pub fn message(self) -> Option<&'static Message> {
        match self {
            Self::Table(message) => Some(message),
            Self::Structural(_) => None,
        }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.looks().fmt(f)
    }
}

impl fmt::Debug for Looks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(message) => f.debug_tuple("Table").field(&message.name).finish(),
            Self::Structural(_) => f.write_str("Structural"),
        }
    }
}
