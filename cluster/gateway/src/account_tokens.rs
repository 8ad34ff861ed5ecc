//! Tokens of service accounts, as one more source of bearer tokens.

use crate::authenticate::{AuthenticateError, Shown, TokenReview, User};
use futures_util::future::BoxFuture;
use impresario_objects::accounts::{AccountError, Accounts, ISSUER};

impl TokenReview for Accounts {
    fn review<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Option<User>, AuthenticateError>> {
        Box::pin(async move {
            let api = [ISSUER.to_owned()];
            Ok(self.review_for(token, &api).await?.map(|(user, _)| user))
        })
    }

    fn review_for<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Shown>, AuthenticateError>> {
        Box::pin(async move {
            let reviewed =
                Accounts::review(self, token, audiences).await.map_err(|error| match error {
                    AccountError::Wrong(why) => AuthenticateError::Wrong(why),
                    AccountError::Unavailable(why) => AuthenticateError::Unavailable(why),
                })?;
            Ok(reviewed.map(|it| {
                let user = it.user;
                let (name, groups, uid, extra) = (user.name, user.groups, user.uid, user.extra);
                (User { name, groups, uid, extra }, it.audiences)
            }))
        })
    }
}
