//! Regular expressions that users write, in the syntax of Go (RE2), within limits.
//!
//! Rust's crate is of the same family: no backtracking, so that a match takes time linear in the
//! text. Where the two read a pattern differently it is rewritten: `\d`, `\s`, `\w` and `\b` are
//! ASCII in Go, brackets and doubled operators inside a class are literal there, and `\Q…\E` quotes.

use regex::{Regex, RegexBuilder};
use std::fmt;
use std::sync::Arc;

/// The longest pattern, in bytes.
pub const MAX_PATTERN: usize = 16 * 1024;
/// What one compiled pattern may take, in bytes; most take the least. The crate does not say what a
/// pattern takes, only whether it is more than so much.
const SIZES: [usize; 4] = [16 * 1024, 64 * 1024, 256 * 1024, 512 * 1024];
/// What it may take besides while it is used, in bytes.
const CACHE: usize = 64 * 1024;
/// How deep groups of a pattern may nest.
const MAX_NESTING: u32 = 64;

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is longer than it may be.
    #[error("must be a valid regular expression of at most {MAX_PATTERN} bytes")]
    TooLong,
    /// It is no regular expression, or one that grows too large.
    #[error("must be a valid regular expression, but isn't: {0}")]
    Syntax(String),
    /// Those before it have taken all that there is.
    #[error("takes too much memory together with the other patterns: write fewer or simpler ones")]
    NoRoom,
}

/// A compiled pattern; cheap to clone.
#[derive(Clone)]
pub struct Pattern {
    source: Arc<str>,
    regex: Regex,
}

impl Pattern {
    /// Compiles a pattern.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        Self::within(source, &mut usize::MAX.clone())
    }

    /// Compiles a pattern into the room that is left, in bytes, and takes what it needs of it.
    pub fn within(source: &str, room: &mut usize) -> Result<Self, PatternError> {
        if source.len() > MAX_PATTERN {
            return Err(PatternError::TooLong);
        }
        let translated = translate(source)?;
        let mut why = PatternError::NoRoom;
        for size in SIZES {
            let Some(left) = room.checked_sub(size + size.max(CACHE)) else {
                return Err(PatternError::NoRoom);
            };
            let built = RegexBuilder::new(&translated)
                .size_limit(size)
                .dfa_size_limit(size.max(CACHE))
                .nest_limit(MAX_NESTING)
                .build();
            match built {
                Ok(regex) => {
                    *room = left;
                    return Ok(Self { source: source.into(), regex });
                }
                Err(error) => {
                    why = PatternError::Syntax(one_line(&error.to_string()));
                    if !matches!(error, regex::Error::CompiledTooBig(_)) {
                        break;
                    }
                }
            }
        }
        Err(why)
    }

    /// The pattern as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether any part of the text matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The first match.
    pub fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.regex.find(text).map(|found| found.as_str())
    }

    /// The matches that do not overlap, from the left.
    pub fn find_all<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        self.regex.find_iter(text).map(|found| found.as_str())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// The crate's messages draw the place over several lines; causes are one line.
fn one_line(text: &str) -> String {
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(text);
    last.trim().trim_start_matches("error: ").to_owned()
}

/// What an ASCII class of Go is in Rust, as a class that may stand inside another.
fn ascii_class(letter: char) -> Option<&'static str> {
    Some(match letter {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        's' => r"[\t\n\f\r ]",
        'S' => r"[^\t\n\f\r ]",
        _ => return None,
    })
}

/// The pattern as Rust's crate reads it.
fn translate(source: &str) -> Result<String, PatternError> {
    let mut out = String::with_capacity(source.len());
    let mut rest = source.chars().peekable();
    let mut in_class = false;
    // Whether the next character of a class is its first, where `]` and `-` are themselves.
    let mut first = false;
    let mut operator = None;
    while let Some(c) = rest.next() {
        let before = operator.take();
        if c == '\\' {
            let Some(escaped) = rest.next() else {
                return Err(PatternError::Syntax("trailing backslash at end of expression".into()));
            };
            match escaped {
                'Q' => {
                    let mut quoted = String::new();
                    while let Some(c) = rest.next() {
                        if c == '\\' && rest.peek() == Some(&'E') {
                            rest.next();
                            break;
                        }
                        quoted.push(c);
                    }
                    out.push_str(&regex::escape(&quoted));
                }
                'E' => {}
                'C' | '<' | '>' | 'Z' | 'u' | 'U' => {
                    let what = format!("invalid escape sequence: `\\{escaped}`");
                    return Err(PatternError::Syntax(what));
                }
                'b' | 'B' if !in_class => {
                    out.push_str(if escaped == 'b' { r"(?-u:\b)" } else { r"(?-u:\B)" });
                }
                _ => match ascii_class(escaped) {
                    Some(class) => out.push_str(class),
                    None => out.extend(['\\', escaped]),
                },
            }
            first = false;
        } else if !in_class {
            out.push(c);
            if c == '[' {
                in_class = true;
                first = true;
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
            }
        } else {
            match c {
                ']' if first => out.push_str(r"\]"),
                ']' => {
                    out.push(']');
                    in_class = false;
                }
                '[' if rest.peek() == Some(&':') => {
                    // A POSIX class: both read it alike.
                    out.push('[');
                    for c in rest.by_ref() {
                        out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                }
                '-' if first => out.push_str(r"\-"),
                '-' | '&' | '~' if before == Some(c) => out.extend(['\\', c]),
                '[' => out.push_str(r"\["),
                c => {
                    out.push(c);
                    operator = matches!(c, '-' | '&' | '~').then_some(c);
                }
            }
            first = false;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_what_it_means_in_go() {
        let rows: &[(&str, &str, bool)] = &[
            (r"^\d+$", "12", true),
            (r"^\d+$", "\u{0661}", false),
            (r"^\w+$", "é", false),
            (r"^[\w.]+$", "a.b_c", true),
            (r"^[^\s]+$", "a b", false),
            (r"^[[]$", "[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[a&&b]+$", "&", true),
            (r"^[+--]+$", ",", true),
            (r"^[--/]+$", ".", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "a-b", true),
            (r"b", "abc", true),
            (r"^.$", "é", true),
        ];
        for (pattern, text, matches) in rows {
            let compiled = Pattern::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert_eq!(compiled.is_match(text), *matches, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_or_grows_too_large_is_refused() {
        for pattern in ["(", "a**b)", r"\", "(?=a)", r"(a)\1", r"((\pL{500}){500}){50}", "[", "[a"]
        {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
        assert_eq!(Pattern::new(&"a".repeat(MAX_PATTERN + 1)), Err(PatternError::TooLong));
        let deep = format!("{}a{}", "(".repeat(500), ")".repeat(500));
        assert!(Pattern::new(&deep).is_err());
    }
}
