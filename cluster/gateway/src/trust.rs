//! Streams end with the trust in who reads them.
//!
//! A certificate's connection ends with the certificate. A bearer token is looked at when a request
//! comes, so that a stream which it opened has to be looked after: it ends within a minute after the
//! token has been removed, has expired, or its pod is gone.

use crate::authenticate::{AuthenticateError, Certificate, TokenReview, identify};
use std::sync::Arc;
use std::time::Duration;

/// How often a token is looked at while a stream that it opened goes on.
pub const EVERY: Duration = Duration::from_mins(1);

/// Resolves when the token, looked at this often, stands for this user no more; never for who shows none.
pub async fn ends(
    authorization: Option<String>,
    user: String,
    tokens: Vec<Arc<dyn TokenReview>>,
    every: Duration,
) {
    let Some(authorization) = authorization else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        match identify(&Certificate::Absent, Some(&authorization), &tokens).await {
            Ok(same) if same.name == user => {}
            // It may be good: who cannot be asked has not said that it is not.
            Err(AuthenticateError::Unavailable(_)) => {}
            Ok(_) | Err(AuthenticateError::Wrong(_)) => {
                return tracing::info!(user, "a stream ends: its token is not good any more");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::authenticate::User;
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use std::sync::Mutex;

    struct Says(Mutex<Vec<Result<Option<User>, AuthenticateError>>>);

    impl TokenReview for Says {
        fn review<'a>(
            &'a self,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Option<User>, AuthenticateError>> {
            let said = self.0.lock().unwrap().pop().expect("one more look");
            Box::pin(std::future::ready(said))
        }
    }

    #[tokio::test]
    async fn a_stream_ends_when_its_token_is_gone_and_not_when_nobody_can_tell() {
        let unknown = Err(AuthenticateError::Unavailable("no leader".into()));
        let says = vec![Ok(None), unknown, Ok(Some(User::new("eve", [])))];
        let says = Arc::new(Says(Mutex::new(says)));
        let header = Some("Bearer x".to_owned());
        ends(header, "eve".into(), vec![says.clone()], Duration::ZERO).await;
        assert!(says.0.lock().unwrap().is_empty());
        let never = ends(None, "eve".into(), Vec::new(), Duration::ZERO);
        assert!(never.now_or_never().is_none());
    }
}
