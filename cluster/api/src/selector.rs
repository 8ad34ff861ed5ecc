//! Which objects are meant: by labels, by fields.
//!
//! [`LabelSelector`] reads the query form (`a=b,c in (d,e),!f`), the object form with
//! `matchLabels` and `matchExpressions`, and the plain map of a service or a replication
//! controller. [`FieldSelector`] reads `metadata.name=x,status.phase!=Failed` and asks the
//! resource's own table which labels it knows.

mod fields;
mod grammar;
mod labels;
mod requirement;

pub use fields::{FieldSelector, FieldTerm};
pub use labels::{LabelNeed, LabelSelector};

/// Requirements of a selector in a query: each is looked at for every object of a collection.
const MOST_REQUIREMENTS: usize = 256;

/// Why a selector cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// The text does not follow the grammar.
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    /// A key is no label key.
    #[error("key: Invalid value: {key:?}: {why}")]
    Key {
        /// The key as written.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A value is no label value.
    #[error("values[{index}][{key}]: Invalid value: {value:?}: {why}")]
    Value {
        /// The key it belongs to.
        key: String,
        /// Which of the values.
        index: usize,
        /// The value as written.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// More is asked than is looked at for each object.
    #[error("a selector has at most {0} requirements: ask for fewer")]
    TooMany(usize),
    /// An operator that is not known.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
    /// The resource cannot be selected by this field.
    #[error("field label not supported: {0}")]
    Field(String),
}
