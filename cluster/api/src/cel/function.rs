//! A row of the table of functions: a name, what it takes and gives, and what it does.

use super::fault::{Budget, Fault, failed};
use super::types::{Bindings, PARAMS, Type, parse};
use super::value::Value;

/// What a function does; a target is the first of the arguments.
pub type Run = for<'a> fn(&mut Budget, &[Value<'a>]) -> Result<Value<'a>, Fault>;

/// A function.
#[derive(Debug)]
pub struct Function {
    /// Its name, with that of its library where it is called with it: `sets.contains`.
    pub name: &'static str,
    /// `(int, A) bool`, and `.(string) bool` for one that is called on its first argument.
    pub signatures: &'static [&'static str],
    /// What it does.
    pub run: Run,
}

/// What hands its arguments on as they are, whatever they are.
const HANDS_ON: [&str; 9] = [
    "dyn",
    "type",
    "string",
    "optional.of",
    "optional.ofNonZeroValue",
    "hasValue",
    "value",
    "or",
    "orValue",
];

impl Function {
    /// Calls it. That it reads its texts is paid for here, so that no function can forget to; what
    /// it makes, and what it looks at more than once, it pays for itself.
    pub fn call<'a>(
        &self,
        budget: &mut Budget,
        arguments: &[Value<'a>],
    ) -> Result<Value<'a>, Fault> {
        if !HANDS_ON.contains(&self.name) {
            for argument in arguments {
                if let Value::Text(text) = argument {
                    budget.spend_bytes(text.len())?;
                }
            }
        }
        (self.run)(budget, arguments)
    }
}

/// A signature.
pub struct Signature {
    /// Whether it is called on its first argument.
    pub member: bool,
    /// What it takes.
    pub takes: Vec<Type>,
    /// What it gives.
    pub gives: Type,
}

impl Signature {
    /// Reads a signature.
    pub fn parse(text: &str) -> Option<Self> {
        let (member, rest) = match text.strip_prefix('.') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (inner, gives) = rest.strip_prefix('(')?.split_once(')')?;
        let mut takes = Vec::new();
        let (mut begin, mut depth) = (0, 0);
        for (at, c) in inner.char_indices() {
            match c {
                '<' => depth += 1,
                '>' => depth -= 1,
                // Commas inside of `map<A,B>` part nothing.
                ',' if depth == 0 => {
                    takes.push(&inner[begin..at]);
                    begin = at + 1;
                }
                _ => {}
            }
        }
        takes.push(&inner[begin..]);
        let takes: Option<Vec<Type>> =
            takes.into_iter().filter(|text| !text.trim().is_empty()).map(parse).collect();
        Some(Self { member, takes: takes?, gives: parse(gives)? })
    }

    /// What a call with these arguments gives, where it fits.
    pub fn call(&self, member: bool, arguments: &[Type]) -> Option<Type> {
        let mut bindings: Bindings = [const { None }; PARAMS];
        let fits = self.member == member
            && self.takes.len() == arguments.len()
            && self.takes.iter().zip(arguments).all(|(take, of)| take.takes(of, &mut bindings));
        fits.then(|| self.gives.resolved(&bindings))
    }
}

/// That no function of this name takes such values.
pub fn no_overload<'a>(name: &str, arguments: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let types: Vec<&str> = arguments.iter().map(Value::type_name).collect();
    Err(failed(format!("no such overload: {name}({})", types.join(", "))))
}
