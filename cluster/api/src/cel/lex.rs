//! The words of an expression: CEL's tokens, with where each stands.

use std::sync::Arc;

/// What a word is.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A name, or a word such as `true` and `in`.
    Name(String),
    /// A whole number without a sign, which may be one more than fits for the sake of its negative.
    Int(u64),
    /// A whole number that cannot be negative, `1u`.
    Uint(u64),
    /// A number with a fraction.
    Double(f64),
    /// A text.
    Text(Arc<str>),
    /// Bytes, `b"…"`.
    Bytes(Arc<[u8]>),
    /// Anything else: operators and brackets.
    Symbol(&'static str),
    /// The end.
    End,
}

/// A word and the byte where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// What it is.
    pub token: Token,
    /// Where it begins.
    pub at: usize,
}

/// What is wrong with the text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The byte where it is.
    pub at: usize,
    /// What it is.
    pub what: String,
}

impl Mistake {
    /// A mistake at a place.
    pub fn new(at: usize, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }
}

const SYMBOLS: [&str; 26] = [
    "&&", "||", "==", "!=", "<=", ">=", ".?", "[?", "(", ")", "[", "]", "{", "}", ".", ",", ":",
    "?", "+", "-", "*", "/", "%", "!", "<", ">",
];

/// The words of a text.
pub fn words(source: &str) -> Result<Vec<Word>, Mistake> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(c) = source[at..].chars().next() {
        if c.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if source[at..].starts_with("//") {
            at += source[at..].find('\n').unwrap_or(source.len() - at);
            continue;
        }
        let (token, end) = if let Some((prefix, quote_at)) = quoted_at(source, at) {
            text(source, at, prefix, quote_at)?
        } else if c.is_ascii_digit()
            || (c == '.' && source[at + 1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            number(source, at)?
        } else if c.is_ascii_alphabetic() || c == '_' {
            let rest = &source[at..];
            let length =
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            (Token::Name(rest[..length].to_owned()), at + length)
        } else if let Some(symbol) = SYMBOLS.iter().find(|s| source[at..].starts_with(**s)) {
            (Token::Symbol(symbol), at + symbol.len())
        } else {
            return Err(Mistake::new(
                at,
                format!("Syntax error: token recognition error at: '{c}'"),
            ));
        };
        words.push(Word { token, at });
        at = end;
    }
    words.push(Word { token: Token::End, at: source.len() });
    Ok(words)
}

/// The prefix of a text that begins here, and where its quote is.
fn quoted_at(source: &str, at: usize) -> Option<(&str, usize)> {
    let rest = &source[at..];
    // No prefix is longer than two: to look for a quote further on would be to read all of the rest
    // for each word.
    let length = rest.bytes().take(3).position(|byte| matches!(byte, b'"' | b'\''))?;
    let prefix = &rest[..length];
    let known = ["", "r", "R", "b", "B", "br", "bR", "Br", "BR", "rb", "rB", "Rb", "RB"];
    known.contains(&prefix).then_some((prefix, at + length))
}

fn text(source: &str, at: usize, prefix: &str, quote_at: usize) -> Result<(Token, usize), Mistake> {
    let raw = prefix.contains(['r', 'R']);
    let bytes = prefix.contains(['b', 'B']);
    let rest = &source[quote_at..];
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| rest.starts_with(quote));
    let quote = quote.unwrap_or("\"");
    let mut out: Vec<u8> = Vec::new();
    let mut here = quote_at + quote.len();
    loop {
        let rest = &source[here..];
        if rest.starts_with(quote) {
            here += quote.len();
            break;
        }
        let Some(c) = rest.chars().next().filter(|c| quote.len() == 3 || *c != '\n') else {
            return Err(Mistake::new(at, "Syntax error: a text without an end"));
        };
        here += c.len_utf8();
        if c == '\\' && !raw {
            here = escape(source, here, bytes, &mut out)?;
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    if bytes {
        return Ok((Token::Bytes(out.into()), here));
    }
    match String::from_utf8(out) {
        Ok(text) => Ok((Token::Text(text.into()), here)),
        Err(_) => Err(Mistake::new(at, "Syntax error: a text that is not UTF-8")),
    }
}

/// Reads an escape behind its backslash, and says where it ends.
fn escape(source: &str, at: usize, bytes: bool, out: &mut Vec<u8>) -> Result<usize, Mistake> {
    let wrong = || Mistake::new(at, "Syntax error: an escape that is none");
    let c = source[at..].chars().next().ok_or_else(wrong)?;
    let after = at + c.len_utf8();
    let simple = match c {
        'a' => Some(7),
        'b' => Some(8),
        'f' => Some(12),
        'n' => Some(b'\n'),
        'r' => Some(b'\r'),
        't' => Some(b'\t'),
        'v' => Some(11),
        '\\' | '\'' | '"' | '`' | '?' => Some(c as u8),
        _ => None,
    };
    if let Some(byte) = simple {
        out.push(byte);
        return Ok(after);
    }
    let (from, digits, radix) = match c {
        'x' | 'X' => (after, 2, 16),
        'u' if !bytes => (after, 4, 16),
        'U' if !bytes => (after, 8, 16),
        '0'..='3' => (at, 3, 8),
        _ => return Err(wrong()),
    };
    let text = source.get(from..from + digits).ok_or_else(wrong)?;
    if !text.chars().all(|c| c.is_digit(radix)) {
        return Err(wrong());
    }
    let code = u32::from_str_radix(text, radix).map_err(|_| wrong())?;
    if bytes {
        out.push(u8::try_from(code).map_err(|_| wrong())?);
    } else {
        let c = char::from_u32(code).ok_or_else(wrong)?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(from + digits)
}

fn number(source: &str, at: usize) -> Result<(Token, usize), Mistake> {
    let rest = &source[at..];
    let wrong = || Mistake::new(at, "Syntax error: a number that is none, or too large");
    if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        let length = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let value = u64::from_str_radix(&hex[..length], 16).map_err(|_| wrong())?;
        return Ok(whole(source, at + 2 + length, value));
    }
    let digits = |from: &str| from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
    let mut length = digits(rest);
    let mut double = false;
    let fraction = rest[length..].strip_prefix('.');
    if let Some(fraction) = fraction.filter(|f| f.starts_with(|c: char| c.is_ascii_digit())) {
        length += 1 + digits(fraction);
        double = true;
    }
    if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if unsigned.starts_with(|c: char| c.is_ascii_digit()) {
            length += 1 + (exponent.len() - unsigned.len()) + digits(unsigned);
            double = true;
        }
    }
    let text = &rest[..length];
    if double {
        return Ok((Token::Double(text.parse().map_err(|_| wrong())?), at + length));
    }
    Ok(whole(source, at + length, text.parse().map_err(|_| wrong())?))
}

fn whole(source: &str, end: usize, value: u64) -> (Token, usize) {
    if source[end..].starts_with(['u', 'U']) {
        (Token::Uint(value), end + 1)
    } else {
        (Token::Int(value), end)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_begins_a_text_only_right_behind_a_prefix() {
        for (source, found) in [
            ("'a'", Some(("", 0))),
            ("r'a'", Some(("r", 1))),
            ("bR\"a\"", Some(("bR", 2))),
            ("abr'a'", None),
            ("ab'a'", None),
            ("\u{e9}'a'", None),
            ("1, 'a'", None),
        ] {
            assert_eq!(quoted_at(source, 0), found, "{source}");
        }
        let long = format!("[{}'a']", "1,".repeat(8000));
        assert_eq!(words(&long).unwrap().len(), 2 * 8000 + 4);
    }
}
