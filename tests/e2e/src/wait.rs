//! Waiting for a condition, with a deadline and the last reason in the failure's text.

use std::time::{Duration, Instant};

/// How long most things may take on a machine that is busy: a passing test never spends it.
const LIMIT: Duration = Duration::from_secs(120);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Returns what `look` finds as soon as it finds it.
///
/// # Panics
/// With `what` and the last reason, when `look` has found nothing for two minutes.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(LIMIT, what, look)
}

/// Like [`eventually`], with a deadline of its own.
pub fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if Instant::now() >= deadline => {
                panic!("{what}: not within {limit:?}; last: {reason}")
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}
