//! How long a write waits before it is redone, since somebody else was quicker.

use impresario_runtime::random;
use rand::Rng as _;
use std::time::Duration;

/// Longer with each attempt, and by chance, so that those who met once do not meet again.
pub(crate) async fn pause(attempt: usize) {
    let most = 4_u64 << attempt.min(6);
    let wait = random::rng().random_range(1..=most);
    tokio::time::sleep(Duration::from_millis(wait)).await;
}
