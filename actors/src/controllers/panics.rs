//! What is left of a panic: the actor that it met goes on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The longest part of a panic's message that is told to people, in characters.
const TOLD: usize = 300;

/// What a panic said, cut short: what it says may be of any length.
#[must_use]
pub fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a word").chars().take(TOLD).collect()
}

/// What a function says, or what its panic said.
pub fn caught<T>(function: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(function)).map_err(|panic| message_of(panic.as_ref()))
}

/// What a function says of an object where many are gone through; `otherwise` where it panics. So one object keeps
/// nobody from hearing of the others.
pub fn spared<T>(what: &str, otherwise: T, function: impl FnOnce() -> T) -> T {
    caught(function).unwrap_or_else(|message| {
        tracing::error!(%what, message, "a controller's function panicked on an object, which is left out: report a bug");
        otherwise
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_a_few_words_and_the_next_is_asked_all_the_same() {
        let asked = |number: usize| {
            spared("numbers", None, || {
                assert!(number != 1, "{}", "x".repeat(5_000));
                Some(number)
            })
        };
        assert_eq!((asked(0), asked(1), asked(2)), (Some(0), None, Some(2)));
        let said = caught(|| assert!(false_of(0), "{}", "x".repeat(5_000))).unwrap_err();
        assert_eq!(said.len(), TOLD);
        assert_eq!(caught(|| std::panic::panic_any(7)), Err("without a word".to_owned()));
    }

    fn false_of(number: usize) -> bool {
        number > 0
    }
}
