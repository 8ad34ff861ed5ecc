//! An expression as a tree. The checker replaces names by what they stand for.

use super::function::Function;
use std::sync::Arc;

/// An expression, and where in the text it stands.
#[derive(Debug, Clone)]
pub struct Expr {
    /// The byte that messages point at.
    pub at: usize,
    /// How many expressions stand in it below each other.
    pub depth: u32,
    /// What it is.
    pub node: Node,
}

/// An operator between two expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it all
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Operator {
    /// How it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}

/// What goes through the entries of a list or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it all
pub enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    /// A map of the same keys.
    TransformMap,
    /// The value of an optional, worked on where there is one.
    OptMap,
    /// The same, where the work gives an optional itself.
    OptFlatMap,
}

/// A loop: what it goes through, the names of its variables, and what is done for each entry.
#[derive(Debug, Clone)]
pub struct Loop {
    /// What is done with the results.
    pub kind: LoopKind,
    /// What it goes through.
    pub range: Expr,
    /// One name for the entry, or two for its key and value.
    pub variables: Vec<String>,
    /// Which entries are worked on.
    pub filter: Option<Expr>,
    /// The work.
    pub body: Expr,
}

/// What an expression is.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // the names say it all
pub enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
    /// A name that the checker has not replaced yet.
    Name(String),
    /// A variable, by its place.
    Variable(usize),
    /// The name of a type.
    TypeName(&'static str),
    Select {
        operand: Box<Expr>,
        field: String,
        optional: bool,
    },
    Has {
        operand: Box<Expr>,
        field: String,
    },
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    Not(Box<Expr>),
    Negate(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Conditional(Box<Expr>, Box<Expr>, Box<Expr>),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    /// A call; a target is the first of the arguments.
    Call {
        name: String,
        member: bool,
        arguments: Vec<Expr>,
        function: Option<&'static Function>,
    },
    Loop(Box<Loop>),
}

impl Node {
    /// The expressions directly below.
    pub fn below(&self) -> Vec<&Expr> {
        match self {
            Self::Select { operand, .. } | Self::Has { operand, .. } => vec![operand],
            Self::Index { operand, index, .. } => vec![operand, index],
            Self::Not(one) | Self::Negate(one) => vec![one],
            Self::And(list) | Self::Or(list) | Self::List(list) => list.iter().collect(),
            Self::Binary(_, left, right) => vec![left, right],
            Self::Conditional(condition, yes, no) => vec![condition, yes, no],
            Self::Map(entries) => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
            Self::Call { arguments, .. } => arguments.iter().collect(),
            Self::Loop(inner) => {
                [&inner.range, &inner.body].into_iter().chain(&inner.filter).collect()
            }
            _ => Vec::new(),
        }
    }
}
