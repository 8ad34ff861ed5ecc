//! What anybody may have sent, cut for a line of the log.

/// Characters of it that a line has.
const MOST: usize = 200;

/// The beginning of a text, which may be as long as a request's header is.
pub fn brief(text: &str) -> &str {
    text.char_indices().nth(MOST).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters_and_a_short_one_is_left() {
        assert_eq!(brief("short"), "short");
        let long = "ä".repeat(MOST);
        assert_eq!(brief(&long), long);
        assert_eq!(brief(&long.repeat(2)), long);
    }
}
