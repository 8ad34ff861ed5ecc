//! What a client's headers offer.

use hyper::header::{HeaderMap, HeaderName};

/// Whether one of the words of these headers is this one.
pub fn has(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let mut words = lines.flat_map(|line| line.split(',')).map(str::trim);
    words.any(|found| found.eq_ignore_ascii_case(word))
}
