//! Reads an expression: CEL's grammar by recursive descent, no deeper than a limit.

use super::lex::{Mistake, Token, Word, words};
use super::tree::{Expr, Loop, LoopKind, Node, Operator};

/// The longest expression, in bytes.
pub const MAX_SOURCE: usize = 16 * 1024;
/// How deep an expression may nest. Reading, checking and running all go down as deep.
pub const MAX_DEPTH: u32 = 96;

/// Words that are no names: of the grammar, or kept for it.
pub const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Reads a whole expression.
pub fn parse(source: &str) -> Result<Expr, Mistake> {
    if source.len() > MAX_SOURCE {
        let what =
            format!("an expression may have {MAX_SOURCE} bytes, and this has {}", source.len());
        return Err(Mistake::new(0, what));
    }
    let mut parser = Parser { words: words(source)?, next: 0, depth: 0 };
    let expression = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expression),
        _ => Err(parser.unexpected()),
    }
}

struct Parser {
    words: Vec<Word>,
    next: usize,
    depth: u32,
}

fn levels(operator: &Token) -> Option<(Operator, u8)> {
    use Operator as O;
    Some(match operator {
        Token::Symbol("==") => (O::Equal, 1),
        Token::Symbol("!=") => (O::NotEqual, 1),
        Token::Symbol("<") => (O::Less, 1),
        Token::Symbol("<=") => (O::LessOrEqual, 1),
        Token::Symbol(">") => (O::Greater, 1),
        Token::Symbol(">=") => (O::GreaterOrEqual, 1),
        Token::Name(name) if name == "in" => (O::In, 1),
        Token::Symbol("+") => (O::Add, 2),
        Token::Symbol("-") => (O::Subtract, 2),
        Token::Symbol("*") => (O::Multiply, 3),
        Token::Symbol("/") => (O::Divide, 3),
        Token::Symbol("%") => (O::Modulo, 3),
        _ => return None,
    })
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.words[self.next.min(self.words.len() - 1)].token
    }

    fn at(&self) -> usize {
        self.words[self.next.min(self.words.len() - 1)].at
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(other) if *other == symbol);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Mistake> {
        if self.take(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Mistake {
        let what = match self.peek() {
            Token::Name(name) => format!("'{name}'"),
            Token::Symbol(symbol) => format!("'{symbol}'"),
            Token::End => "'<EOF>'".to_owned(),
            Token::Text(text) => format!("{text:?}"),
            _ => "a literal".to_owned(),
        };
        Mistake::new(self.at(), format!("Syntax error: extraneous or mismatched input {what}"))
    }

    fn make(at: usize, node: Node) -> Result<Expr, Mistake> {
        let depth = 1 + node.below().iter().map(|below| below.depth).max().unwrap_or(0);
        if depth > MAX_DEPTH {
            return Err(Mistake::new(at, format!("expressions may nest {MAX_DEPTH} deep")));
        }
        Ok(Expr { at, depth, node })
    }

    fn expression(&mut self) -> Result<Expr, Mistake> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let what = format!("expressions may nest {MAX_DEPTH} deep");
            return Err(Mistake::new(self.at(), what));
        }
        let condition = self.either()?;
        let at = self.at();
        let whole = if self.take("?") {
            let yes = self.either()?;
            self.expect(":")?;
            let no = self.expression()?;
            let node = Node::Conditional(Box::new(condition), Box::new(yes), Box::new(no));
            Self::make(at, node)?
        } else {
            condition
        };
        self.depth -= 1;
        Ok(whole)
    }

    fn either(&mut self) -> Result<Expr, Mistake> {
        let first = self.both()?;
        let at = self.at();
        let mut all = vec![first];
        while self.take("||") {
            all.push(self.both()?);
        }
        Self::chain(at, all, Node::Or)
    }

    fn both(&mut self) -> Result<Expr, Mistake> {
        let first = self.binary(1)?;
        let at = self.at();
        let mut all = vec![first];
        while self.take("&&") {
            all.push(self.binary(1)?);
        }
        Self::chain(at, all, Node::And)
    }

    fn chain(at: usize, mut all: Vec<Expr>, node: fn(Vec<Expr>) -> Node) -> Result<Expr, Mistake> {
        match all.pop() {
            Some(only) if all.is_empty() => Ok(only),
            Some(last) => {
                all.push(last);
                Self::make(at, node(all))
            }
            None => Err(Mistake::new(at, "Syntax error: nothing here")),
        }
    }

    fn binary(&mut self, least: u8) -> Result<Expr, Mistake> {
        let mut left = self.unary()?;
        while let Some((operator, level)) = levels(self.peek()).filter(|(_, l)| *l >= least) {
            let at = self.at();
            self.next += 1;
            let right = self.binary(level + 1)?;
            left = Self::make(at, Node::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Mistake> {
        let at = self.at();
        let mut signs = 0;
        for (symbol, node) in [
            ("!", Node::Not as fn(Box<Expr>) -> Node),
            ("-", Node::Negate as fn(Box<Expr>) -> Node),
        ] {
            while self.take(symbol) {
                signs += 1;
            }
            if signs == 0 {
                continue;
            }
            if symbol == "-" && signs % 2 == 1 {
                // The smallest number has no positive of its own.
                match self.peek() {
                    Token::Int(value) if *value == 1 << 63 => {
                        self.next += 1;
                        let smallest = Self::make(at, Node::Int(i64::MIN))?;
                        return self.behind(smallest);
                    }
                    Token::Int(value) => {
                        let negative = i64::try_from(*value).map(|value| -value);
                        if let Ok(negative) = negative {
                            self.next += 1;
                            let negative = Self::make(at, Node::Int(negative))?;
                            return self.behind(negative);
                        }
                    }
                    Token::Double(value) => {
                        let negative = -*value;
                        self.next += 1;
                        let negative = Self::make(at, Node::Double(negative))?;
                        return self.behind(negative);
                    }
                    _ => {}
                }
            }
            let operand = self.member()?;
            // Twice not is what it was, but only of what can be not.
            let mut whole = Self::make(at, node(Box::new(operand)))?;
            if signs % 2 == 0 {
                whole = Self::make(at, node(Box::new(whole)))?;
            }
            return Ok(whole);
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr, Mistake> {
        let primary = self.primary()?;
        self.behind(primary)
    }

    /// Fields, entries and calls behind an expression.
    fn behind(&mut self, mut whole: Expr) -> Result<Expr, Mistake> {
        loop {
            let at = self.at();
            let dot_optional = self.take(".?");
            if dot_optional || self.take(".") {
                let name = self.name()?;
                // Messages point at the bracket of a call, and at the dot of a field.
                let open = self.at();
                let operand = Box::new(whole);
                whole = if !dot_optional && self.take("(") {
                    let arguments = self.list(")")?;
                    Self::call(open, name, Some(*operand), arguments)?
                } else {
                    let node = Node::Select { operand, field: name, optional: dot_optional };
                    Self::make(at, node)?
                };
                continue;
            }
            let index_optional = self.take("[?");
            if index_optional || self.take("[") {
                let index = Box::new(self.expression()?);
                self.expect("]")?;
                let node =
                    Node::Index { operand: Box::new(whole), index, optional: index_optional };
                whole = Self::make(at, node)?;
                continue;
            }
            return Ok(whole);
        }
    }

    fn name(&mut self) -> Result<String, Mistake> {
        match self.peek() {
            Token::Name(name) => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn list(&mut self, end: &str) -> Result<Vec<Expr>, Mistake> {
        let mut all = Vec::new();
        while !self.take(end) {
            all.push(self.expression()?);
            if !self.take(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(all)
    }

    fn primary(&mut self) -> Result<Expr, Mistake> {
        let at = self.at();
        let token = self.peek().clone();
        self.next += 1;
        let node = match token {
            Token::Int(value) => match i64::try_from(value) {
                Ok(value) => Node::Int(value),
                Err(_) => return Err(Mistake::new(at, "invalid int literal")),
            },
            Token::Uint(value) => Node::Uint(value),
            Token::Double(value) => Node::Double(value),
            Token::Text(text) => Node::Text(text),
            Token::Bytes(bytes) => Node::Bytes(bytes),
            Token::Symbol("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Symbol("[") => Node::List(self.list("]")?),
            Token::Symbol("{") => Node::Map(self.entries()?),
            // A name of the outermost scope; there is no other.
            Token::Symbol(".") => Node::Name(self.name()?),
            Token::Name(name) => match name.as_str() {
                "true" => Node::Bool(true),
                "false" => Node::Bool(false),
                "null" => Node::Null,
                _ if RESERVED.contains(&name.as_str()) => {
                    return Err(Mistake::new(at, format!("reserved identifier: {name}")));
                }
                _ if matches!(self.peek(), Token::Symbol("(")) => {
                    let open = self.at();
                    self.next += 1;
                    let arguments = self.list(")")?;
                    return Self::call(open, name, None, arguments);
                }
                _ => Node::Name(name),
            },
            _ => {
                self.next -= 1;
                return Err(self.unexpected());
            }
        };
        Self::make(at, node)
    }

    fn entries(&mut self) -> Result<Vec<(Expr, Expr)>, Mistake> {
        let mut all = Vec::new();
        while !self.take("}") {
            let key = self.expression()?;
            self.expect(":")?;
            all.push((key, self.expression()?));
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(all)
    }

    /// A call, or one of the forms that look like one and are none: `has`, `all`, `map` and so on.
    fn call(
        at: usize,
        name: String,
        target: Option<Expr>,
        mut arguments: Vec<Expr>,
    ) -> Result<Expr, Mistake> {
        let Some(target) = target else {
            if name == "has" && arguments.len() == 1 {
                return match arguments.pop().map(|argument| argument.node) {
                    Some(Node::Select { operand, field, optional: false }) => {
                        Self::make(at, Node::Has { operand, field })
                    }
                    _ => Err(Mistake::new(at, "invalid argument to has() macro")),
                };
            }
            let node = Node::Call { name, member: false, arguments, function: None };
            return Self::make(at, node);
        };
        if let Some((kind, count, filtered)) = loop_kind(&name, arguments.len()) {
            return Self::looped(at, kind, count, filtered, target, arguments);
        }
        arguments.insert(0, target);
        Self::make(at, Node::Call { name, member: true, arguments, function: None })
    }

    fn looped(
        at: usize,
        kind: LoopKind,
        count: usize,
        filtered: bool,
        range: Expr,
        mut arguments: Vec<Expr>,
    ) -> Result<Expr, Mistake> {
        let work = arguments.split_off(count);
        let mut variables = Vec::with_capacity(count);
        for argument in arguments {
            match argument.node {
                Node::Name(name) if !variables.contains(&name) => variables.push(name),
                _ => return Err(Mistake::new(argument.at, "argument is not an identifier")),
            }
        }
        let mut work = work.into_iter();
        let filter = if filtered { work.next() } else { None };
        let body = work.next().ok_or_else(|| Mistake::new(at, "Syntax error: nothing to do"))?;
        let node = Node::Loop(Box::new(Loop { kind, range, variables, filter, body }));
        Self::make(at, node)
    }
}

/// The form that a call of so many arguments is, how many variables it names, and whether the
/// expression behind them says which entries are worked on.
fn loop_kind(name: &str, count: usize) -> Option<(LoopKind, usize, bool)> {
    Some(match (name, count) {
        ("all", 2) => (LoopKind::All, 1, false),
        ("all", 3) => (LoopKind::All, 2, false),
        ("exists", 2) => (LoopKind::Exists, 1, false),
        ("exists", 3) => (LoopKind::Exists, 2, false),
        ("exists_one" | "existsOne", 2) => (LoopKind::ExistsOne, 1, false),
        ("exists_one" | "existsOne", 3) => (LoopKind::ExistsOne, 2, false),
        ("map", 2) => (LoopKind::Map, 1, false),
        ("map", 3) => (LoopKind::Map, 1, true),
        ("filter", 2) => (LoopKind::Filter, 1, false),
        ("transformList", 3) => (LoopKind::Map, 2, false),
        ("transformList", 4) => (LoopKind::Map, 2, true),
        ("transformMap", 3) => (LoopKind::TransformMap, 2, false),
        ("transformMap", 4) => (LoopKind::TransformMap, 2, true),
        ("optMap", 2) => (LoopKind::OptMap, 1, false),
        ("optFlatMap", 2) => (LoopKind::OptFlatMap, 1, false),
        _ => return None,
    })
}
