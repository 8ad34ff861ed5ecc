//! What a row does with objects: functions of the program, or closures that carry data.

use crate::cause::Cause;
use crate::context::Context;
use crate::dynamic::DynamicSchema;
use crate::status::Status;
use jiff::Timestamp;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// Fills in what an object leaves out.
pub type FillIn = Arc<dyn Fn(&mut Value) + Send + Sync>;
/// What the server decides about a new object.
pub type PrepareCreate = Arc<dyn Fn(&mut Value, &Context<'_>) -> Result<(), Status> + Send + Sync>;
/// What the server decides about a changed object (the new one, the old one).
pub type PrepareUpdate =
    Arc<dyn Fn(&mut Value, &Value, &Context<'_>) -> Result<(), Status> + Send + Sync>;
/// Looks for what is wrong with an object.
pub type Validate = Arc<dyn Fn(&Value) -> Vec<Cause> + Send + Sync>;
/// Looks for what is wrong with a change (the new object, the old one).
pub type ValidateChange = Arc<dyn Fn(&Value, &Value) -> Vec<Cause> + Send + Sync>;
/// Draws values for an object (the new one, the old one if it is a change).
pub type Allocate =
    Arc<dyn Fn(&mut Value, Option<&Value>, &Context<'_>) -> Result<(), Vec<Cause>> + Send + Sync>;
/// Says what the writer of an object should know.
pub type Warn = Arc<dyn Fn(&Value) -> Vec<String> + Send + Sync>;
/// The cells of an object in a table, one a column.
pub type Cells = Arc<dyn Fn(&Value, Timestamp) -> Vec<Value> + Send + Sync>;

/// The functions in which kinds differ: plain ones, or ones that carry data. [`Rules::plain`] is a kind without any.
#[derive(Clone)]
pub struct Rules {
    /// Fills in what is not given; must be idempotent.
    pub default: FillIn,
    /// What the server itself decides about a new object, before it is validated.
    pub prepare_create: PrepareCreate,
    /// What the server itself decides about a changed object, before it is validated.
    pub prepare_update: PrepareUpdate,
    /// What is wrong with a new object, its metadata aside.
    pub validate: Validate,
    /// What is wrong with a change (new, old), its metadata aside.
    pub validate_update: ValidateChange,
    /// What is wrong with a change through the status door (new, old).
    pub validate_status: ValidateChange,
    /// Draws values from the cluster's ranges for an object found valid (new, old if it is a change).
    pub allocate: Allocate,
    /// What the writer should know although nothing is wrong.
    pub warnings: Warn,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").finish_non_exhaustive()
    }
}

impl Rules {
    /// No defaults, nothing forbidden but what metadata forbids.
    pub fn plain() -> Self {
        Self {
            default: Arc::new(|_| {}),
            prepare_create: Arc::new(|_, _| Ok(())),
            prepare_update: Arc::new(|_, _, _| Ok(())),
            validate: Arc::new(|_| Vec::new()),
            validate_update: Arc::new(|_, _| Vec::new()),
            validate_status: Arc::new(|_, _| Vec::new()),
            allocate: Arc::new(|_, _, _| Ok(())),
            warnings: Arc::new(|_| Vec::new()),
        }
    }

    /// The rules that a schema makes by itself.
    pub(super) fn of_schema(schema: &Arc<dyn DynamicSchema>) -> Self {
        let of = |schema: &Arc<dyn DynamicSchema>| Arc::clone(schema);
        let (defaults, news, changes) = (of(schema), of(schema), of(schema));
        let validate_update: ValidateChange =
            Arc::new(move |new, old| changes.validate(new, Some(old)));
        Self {
            default: Arc::new(move |object| defaults.default(object)),
            validate: Arc::new(move |object| news.validate(object, None)),
            validate_status: validate_update.clone(),
            validate_update,
            ..Self::plain()
        }
    }
}

/// How the deletion of a kind's objects differs from the usual.
#[derive(Debug, Clone, Copy)]
pub struct DeletionRule {
    /// Whether the answer is the object even when it is gone at once; else it is a Status then.
    pub answers_object: bool,
    /// Whether what it owns is left alone where the caller does not say otherwise.
    pub orphans: bool,
    /// Seconds that an object gets to end, unless the caller says how many; none for one that needs no time.
    pub grace: fn(&Value) -> Option<i64>,
    /// What is written on an object that is marked as deleted, besides its metadata.
    pub mark: fn(&mut Value),
    /// Whether more than the finalizers of its metadata hold an object that is deleted.
    pub is_held: fn(&Value) -> bool,
}

impl DeletionRule {
    /// A Status where it is gone; what it owns goes too; it goes at once.
    pub const USUAL: Self = Self {
        answers_object: false,
        orphans: false,
        grace: |_| None,
        mark: |_| {},
        is_held: |_| false,
    };
    /// The answer is the object itself, in any case.
    pub const ANSWERS_OBJECT: Self = Self { answers_object: true, ..Self::USUAL };
    /// What it owns stays unless the caller says otherwise: how the oldest kinds began.
    pub const ORPHANS: Self = Self { orphans: true, ..Self::USUAL };
}
