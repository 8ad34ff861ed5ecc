//! A new token of a service account, for somebody who may ask for it.
//!
//! As Kubernetes has it (`pkg/registry/core/serviceaccount/storage/token.go`), but no token lasts longer than
//! [`LONGEST_LIFE`]: the answer says how long it is good for.

use super::claims::{Bound, Claims, ISSUER, LONGEST_LIFE, Named, user_of};
use super::held::{AccountError, Accounts};
use super::keys::KeysError;
use impresario_api::catalog::find;
use impresario_api::field::text;
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_registry_api::{Consistency, Key};
use impresario_runtime::clock;
use jiff::Timestamp;
use serde_json::Value;

/// What a pod asks for whose author did not say: its token is good for a year, because programs of old read it but once;
/// the node replaces it after an hour all the same.
const UNTOLD_SECONDS: i64 = 3607;

/// What somebody wants of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// For whom it is to be; for the API where there is none.
    pub audiences: Vec<String>,
    /// How long it is to be good for.
    pub seconds: i64,
    /// With what it is to end.
    pub bound: Option<BoundTo>,
}

/// The object that a token is to end with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BoundTo {
    /// `Pod`, `Secret` or `Node`.
    pub kind: String,
    /// `v1`, or nothing.
    pub api_version: String,
    /// Its name.
    pub name: String,
    /// Its uid, or nothing.
    pub uid: String,
}

/// A new token.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The token.
    pub token: String,
    /// For whom it is.
    pub audiences: Vec<String>,
    /// By when its holder needs another one.
    pub expires: Timestamp,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Accounts {
    /// A token of an account. Whether who asks may have it is known to the caller.
    pub async fn issue(
        &self,
        namespace: &str,
        account: &str,
        wanted: Wanted,
    ) -> Result<Issued, Status> {
        let found = self.read("serviceaccounts", namespace, account).await?;
        let mut bound = Bound {
            namespace: namespace.to_owned(),
            serviceaccount: named(account, &found),
            ..Bound::default()
        };
        if let Some(to) = &wanted.bound {
            self.bind(to, account, &mut bound).await?;
        }
        let audiences =
            if wanted.audiences.is_empty() { vec![ISSUER.to_owned()] } else { wanted.audiences };
        let now = clock::timestamp().as_second();
        let longest = LONGEST_LIFE.as_secs().cast_signed();
        let seconds = wanted.seconds.clamp(0, longest);
        let is_for_api = audiences.iter().all(|audience| audience == ISSUER);
        let mut ends = now.saturating_add(seconds);
        let expires = ends;
        if bound.pod.is_some() && is_for_api && seconds == UNTOLD_SECONDS {
            ends = now.saturating_add(longest);
            bound.warnafter = Some(expires);
        }
        let claims = Claims {
            aud: audiences.clone(),
            exp: ends,
            iat: now,
            iss: ISSUER.to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            bound,
            nbf: now,
            sub: user_of(namespace, account),
        };
        let key = self.keys.signing().await.map_err(|error| match error {
            KeysError::Unavailable(_) => Status::unavailable(error.to_string(), 1),
            KeysError::Key(error) => Status::internal(error),
        })?;
        let payload = serde_json::to_vec(&claims).map_err(Status::internal)?;
        let token = key.sign(&payload).map_err(Status::internal)?;
        let expires = Timestamp::from_second(expires).map_err(Status::internal)?;
        Ok(Issued { token, audiences, expires })
    }

    async fn bind(&self, to: &BoundTo, account: &str, bound: &mut Bound) -> Result<(), Status> {
        let in_v1 = matches!(to.api_version.as_str(), "" | "v1");
        let resource = match to.kind.as_str() {
            "Pod" if in_v1 => "pods",
            "Secret" if in_v1 => "secrets",
            "Node" if in_v1 => "nodes",
            kind => {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to object of kind {kind:?}: only to a Pod, a \
                     Secret or a Node"
                )));
            }
        };
        let namespace = if resource == "nodes" { "" } else { bound.namespace.as_str() };
        let object = self.read(resource, namespace, &to.name).await?;
        let it = named(&to.name, &object);
        if !to.uid.is_empty() && to.uid != it.uid {
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have \
                 been deleted and then recreated",
                to.uid
            );
            return Err(Status::conflict(&*row(resource)?, &to.name, why));
        }
        match resource {
            "pods" => {
                let spec = &object["spec"];
                let own = Some(text(spec, "serviceAccountName")).filter(|name| !name.is_empty());
                if own.unwrap_or("default") != account {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with different \
                         serviceaccount name."
                    )));
                }
                let node = text(spec, "nodeName");
                if !node.is_empty() {
                    let found = self.find("nodes", "", node).await?.unwrap_or_default();
                    bound.node = Some(named(node, &found));
                }
                bound.pod = Some(it);
            }
            "secrets" => bound.secret = Some(it),
            _ => bound.node = Some(it),
        }
        Ok(())
    }

    async fn read(&self, resource: &str, namespace: &str, name: &str) -> Result<Value, Status> {
        match self.find(resource, namespace, name).await? {
            Some(object) => Ok(object),
            None => Err(Status::not_found(&*row(resource)?, name)),
        }
    }

    async fn find(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Status> {
        let key = Key::new(resource, namespace, name);
        let found = self.get(key, Consistency::Linearizable).await;
        let found = found.map_err(|error| match error {
            AccountError::Unavailable(why) => Status::unavailable(why, 1),
            AccountError::Wrong(why) => Status::internal(why),
        })?;
        let object = found.map(|entry| serde_json::from_slice(&entry.value)).transpose();
        object.map_err(|error| Status::internal(format!("{resource} {name:?}: {error}")))
    }
}

fn row(resource: &str) -> Result<Row, Status> {
    find("", "v1", resource)
        .ok_or_else(|| Status::internal(format!("no resource {resource} is served")))
}

fn named(name: &str, object: &Value) -> Named {
    Named { name: name.to_owned(), uid: text(object, "metadata.uid").to_owned() }
}
