//! What many containers use, asked of each within a limit: one that does not answer keeps nobody else from being told.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Containers that are asked about at a time.
const ASKED_AT_A_TIME: usize = 16;
/// How long the answer about one may take.
const ONE_LIMIT: Duration = Duration::from_secs(1);
/// How long all of them may: who asks does so every five seconds.
const LIMIT: Duration = Duration::from_secs(2);

/// What is answered in time; what is not, or is nothing, is left out.
pub(crate) async fn in_time<'a, T: Send + 'a>(asked: Vec<BoxFuture<'a, Option<T>>>) -> Vec<T> {
    let limited = |answer: BoxFuture<'a, Option<T>>| {
        async move { timeout(ONE_LIMIT, answer).await.ok().flatten() }.boxed()
    };
    let asked: Vec<BoxFuture<'a, Option<T>>> = asked.into_iter().map(limited).collect();
    let answers = stream::iter(asked).buffer_unordered(ASKED_AT_A_TIME);
    let told = answers.take_until(Box::pin(sleep(LIMIT))).filter_map(std::future::ready);
    told.collect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers about so many of which those hang that are so.
    async fn answered(containers: usize, hangs: impl Fn(usize) -> bool + Send) -> Vec<usize> {
        let asked = (0..containers).map(move |number| {
            let hangs = hangs(number);
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Some(number)
            }
            .boxed()
        });
        let mut told = in_time(asked.collect()).await;
        told.sort_unstable();
        told
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_does_not_answer_keeps_nobody_else_from_being_told() {
        let begun = tokio::time::Instant::now();
        let told = answered(200, |number| number % 20 == 3).await;
        assert_eq!(told.len(), 190);
        assert!(!told.contains(&23) && told.contains(&199));
        // More than are asked about at a time, and all of them in the way: what was told before that is told.
        let told = answered(500, |number| number >= 7).await;
        assert_eq!(told, (0..7).collect::<Vec<_>>());
        assert!(begun.elapsed() <= 2 * (LIMIT + ONE_LIMIT));
    }

    #[tokio::test]
    async fn what_cannot_be_told_is_left_out() {
        let asked = (0..4).map(|number| async move { (number % 2 == 0).then_some(number) }.boxed());
        let mut told = in_time(asked.collect()).await;
        told.sort_unstable();
        assert_eq!(told, [0, 2]);
    }
}
