//! Who a token stands for.

use super::claims::{AccountUser, Claims, ISSUER, Need, Seen};
use super::held::{AccountError, Accounts};
use super::jws::Jws;
use impresario_registry_api::{Consistency, Key};
use impresario_runtime::clock;
use jiff::Timestamp;
use serde::Deserialize;

/// A token that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reviewed {
    /// Who it stands for.
    pub user: AccountUser,
    /// Which of the audiences that it was shown to it is for.
    pub audiences: Vec<String>,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

impl Accounts {
    /// Who a token stands for that is shown to these audiences; `None` if it is none of ours.
    pub async fn review(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Reviewed>, AccountError> {
        let Some(jws) = Jws::read(token) else { return Ok(None) };
        let issuer: Option<Issuer> = serde_json::from_slice(&jws.payload).ok();
        if issuer.is_none_or(|issuer| issuer.iss != ISSUER) {
            return Ok(None);
        }
        let wrong = |why: &str| AccountError::Wrong(why.to_owned());
        let key = self.keys.seek(jws.key()).await?;
        if !key.is_some_and(|key| jws.is_signed_by(&key)) {
            return Err(wrong("no key of this cluster has signed the token"));
        }
        let claims: Claims = serde_json::from_slice(&jws.payload)
            .map_err(|_| wrong("the token does not say what tokens of accounts say"))?;
        let now = clock::timestamp();
        let audiences = claims.judge(audiences, now).map_err(wrong)?;
        let mut missing = self.missing(&claims, now).await?;
        if let Some((_, key)) = missing {
            // It may be newer than what this member has.
            self.caught_up.wait(&self.registry, &key).await.map_err(AccountError::Unavailable)?;
            missing = self.missing(&claims, now).await?;
        }
        match missing {
            None => Ok(Some(Reviewed { user: claims.user(), audiences })),
            Some((what, _)) => Err(wrong(&format!("the {what} of the token is gone"))),
        }
    }

    /// The first of the objects that a token needs that is not there, as far as this member knows.
    async fn missing(
        &self,
        claims: &Claims,
        now: Timestamp,
    ) -> Result<Option<(&'static str, Key)>, AccountError> {
        for need @ Need { resource, what, named } in claims.needs() {
            let namespace = if resource == "nodes" { "" } else { &*claims.bound.namespace };
            let key = Key::new(resource, namespace, &named.name);
            let found = self.get(key.clone(), Consistency::Local).await?;
            let seen = found.and_then(|it| serde_json::from_slice::<Seen>(&it.value).ok());
            if !seen.is_some_and(|seen| need.is_met(&seen, now)) {
                return Ok(Some((what, key)));
            }
        }
        Ok(None)
    }
}
