//! CEL, the expressions in which users say what must hold of their objects.
//!
//! An expression is read (`parse`), checked against the types of its variables (`check`) and run
//! within a budget (`run`). What it names and nobody knows is found when it is compiled, and it
//! can neither loop nor grow past its budget.
//!
//! The crate `cel` is not used: it counts no work and has no place to do so, checks no types (a field
//! that is not in the schema would be found only when an object comes), copies every object into
//! values of its own, and brings a generated parser with a runtime for it. See docs/decisions/0010-cel.md.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod bound_tests;
mod check;
mod fault;
mod function;
mod lex;
mod library;
mod parse;
mod run;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
mod tree;
mod types;
mod value;

pub use check::Variable;
pub use fault::{Budget, Fault};
pub use parse::RESERVED;
pub use types::{Field, ListType, ObjectType, Type};
pub use value::Value;

use std::fmt::Write as _;

/// Why an expression was refused, as compilers say it: with the line and a mark below the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CompileError(String);

/// An expression that can be run any number of times.
#[derive(Debug, Clone)]
pub struct Program {
    root: tree::Expr,
    gives: Type,
}

impl Program {
    /// Compiles an expression over these variables.
    pub fn compile(source: &str, variables: &[Variable]) -> Result<Self, CompileError> {
        let compiled = parse::parse(source).and_then(|mut root| {
            let gives = check::check(&mut root, variables.to_vec())?;
            Ok(Self { root, gives })
        });
        compiled.map_err(|mistake| CompileError(drawn(source, &mistake)))
    }

    /// What it gives.
    pub fn gives(&self) -> &Type {
        &self.gives
    }

    /// Whether it reads the variable at this place of those that it was compiled with.
    pub fn reads(&self, variable: usize) -> bool {
        check::reads(&self.root, variable)
    }

    /// Runs it with the values of its variables, in their order.
    pub fn run<'a>(
        &'a self,
        values: Vec<Value<'a>>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, Fault> {
        run::run(&self.root, values, budget)
    }
}

/// Whether a text can be read as an expression, whatever its names may mean.
pub fn syntax(source: &str) -> Result<(), CompileError> {
    match parse::parse(source) {
        Ok(_) => Ok(()),
        Err(mistake) => Err(CompileError(drawn(source, &mistake))),
    }
}

/// The mistake under its line.
fn drawn(source: &str, mistake: &lex::Mistake) -> String {
    let before = &source[..source.floor_char_boundary(mistake.at.min(source.len()))];
    let number = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count();
    let line = source.lines().nth(number - 1).unwrap_or_default();
    let mut text = format!("ERROR: <input>:{number}:{}: {}", column + 1, mistake.what);
    _ = write!(text, "\n | {line}\n | {}^", ".".repeat(column));
    text
}
