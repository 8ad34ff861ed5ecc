//! What a token of a service account says, and whether that holds now. No IO.
//!
//! As Kubernetes has it (`pkg/serviceaccount/claims.go`): names and claims are those that its clients read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Who signs, as tokens and discovery name it; the audience of who asks for none, too.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The longest that a token is good for, whatever is asked for: keys are kept until their last token is over.
pub const LONGEST_LIFE: Duration = Duration::from_hours(365 * 24);
/// How far the clocks of two machines may be apart.
const LEEWAY: i64 = 60;
/// How long something is still taken for alive that is going.
const GRACE: i64 = 60;
const USER: &str = "system:serviceaccount";
const GROUP: &str = "system:serviceaccounts";
const EXTRA: &str = "authentication.kubernetes.io";

/// All that a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom it is.
    pub aud: Vec<String>,
    /// When it ends, in seconds since 1970, as all times here.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// What tells it from all others.
    pub jti: String,
    /// What it stands for, and with what it ends.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    /// From when on it holds.
    pub nbf: i64,
    /// The user that it stands for.
    pub sub: String,
}

/// What a token stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The namespace of the account, and of the pod or secret.
    pub namespace: String,
    /// The node that the pod is bound to, or the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Named>,
    /// The pod with which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Named>,
    /// The secret with which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Named>,
    /// The account.
    pub serviceaccount: Named,
    /// When its holder should have had another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// An object by its name and uid.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its uid: another of that name is not meant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// Who a token says is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountUser {
    /// The name.
    pub name: String,
    /// The account's uid.
    pub uid: String,
    /// The groups of all accounts, and of those of its namespace.
    pub groups: Vec<String>,
    /// Which token, pod and node.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The user that an account is.
pub fn user_of(namespace: &str, account: &str) -> String {
    format!("{USER}:{namespace}:{account}")
}

impl Claims {
    /// Which of these audiences it is for, if it holds now; why not, else.
    pub fn judge(&self, audiences: &[String], now: Timestamp) -> Result<Vec<String>, &'static str> {
        let now = now.as_second();
        if now.saturating_sub(LEEWAY) > self.exp {
            return Err("the token has expired");
        }
        if now.saturating_add(LEEWAY) < self.nbf.max(self.iat) {
            return Err("the token is not valid yet");
        }
        if self.sub != user_of(&self.bound.namespace, &self.bound.serviceaccount.name) {
            return Err("the token says two things of who it stands for");
        }
        let both: Vec<String> =
            audiences.iter().filter(|wanted| self.aud.contains(wanted)).cloned().collect();
        if both.is_empty() { Err("the token is for another audience") } else { Ok(both) }
    }

    /// The objects that must be there for it to hold, by the resource that they are of, whether they are in the
    /// namespace, and how refusals call them. Where a pod is named its node says only where it was.
    pub fn needs(&self) -> impl Iterator<Item = Need<'_>> {
        let bound = &self.bound;
        let node = bound.node.as_ref().filter(|_| bound.pod.is_none());
        let need = |resource, what, named| Need { resource, what, named };
        [
            Some(need("serviceaccounts", "service account", &bound.serviceaccount)),
            bound.secret.as_ref().map(|named| need("secrets", "secret", named)),
            bound.pod.as_ref().map(|named| need("pods", "pod", named)),
            node.map(|named| need("nodes", "node", named)),
        ]
        .into_iter()
        .flatten()
    }

    /// Who is there.
    pub fn user(&self) -> AccountUser {
        let bound = &self.bound;
        let mut extra = BTreeMap::new();
        let mut tell = |key: &str, value: String| {
            if !value.is_empty() {
                extra.insert(format!("{EXTRA}/{key}"), vec![value]);
            }
        };
        if !self.jti.is_empty() {
            tell("credential-id", format!("JTI={}", self.jti));
        }
        for (kind, named) in [("pod", &bound.pod), ("node", &bound.node)] {
            if let Some(named) = named {
                tell(&format!("{kind}-name"), named.name.clone());
                tell(&format!("{kind}-uid"), named.uid.clone());
            }
        }
        AccountUser {
            name: self.sub.clone(),
            uid: bound.serviceaccount.uid.clone(),
            groups: vec![GROUP.to_owned(), format!("{GROUP}:{}", bound.namespace)],
            extra,
        }
    }
}

/// An object without which a token does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need<'a> {
    /// The resource that it is of.
    pub resource: &'static str,
    /// What people call it.
    pub what: &'static str,
    /// Which one.
    pub named: &'a Named,
}

/// What is read of an object that a token names.
#[derive(Debug, Deserialize)]
pub struct Seen {
    metadata: SeenMetadata,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SeenMetadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    deletion_timestamp: Option<Timestamp>,
}

impl Need<'_> {
    /// Whether this object is the one, and not long gone.
    pub fn is_met(&self, seen: &Seen, now: Timestamp) -> bool {
        let going = seen.metadata.deletion_timestamp;
        let is_over = going.is_some_and(|at| at < now - Duration::from_secs(GRACE.unsigned_abs()));
        seen.metadata.uid == self.named.uid && !is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn named(name: &str, uid: &str) -> Named {
        Named { name: name.into(), uid: uid.into() }
    }

    fn claims() -> Claims {
        Claims {
            aud: vec![ISSUER.into(), "vault".into()],
            exp: 10_000,
            iat: 5_000,
            iss: ISSUER.into(),
            jti: "j".into(),
            bound: Bound {
                namespace: "ns".into(),
                node: Some(named("n1", "nu")),
                pod: Some(named("p", "pu")),
                serviceaccount: named("robot", "su"),
                ..Bound::default()
            },
            nbf: 5_000,
            sub: "system:serviceaccount:ns:robot".into(),
        }
    }

    /// What it is about | the claims | the audiences | the time | for whom it is, or why not.
    type Row<'a> = (&'a str, Claims, &'a [&'a str], i64, Result<&'a [&'a str], &'a str>);

    #[test]
    fn a_token_holds_in_its_time_for_its_audience_and_clocks_may_be_a_minute_apart() {
        let api = [ISSUER.to_owned()];
        let rows: [Row<'_>; 11] = [
            ("in time", claims(), &[ISSUER], 7_000, Ok(&[ISSUER])),
            ("of two", claims(), &["x", "vault"], 7_000, Ok(&["vault"])),
            ("another", claims(), &["x"], 7_000, Err("the token is for another audience")),
            ("of nobody", claims(), &[], 7_000, Err("the token is for another audience")),
            ("just over", claims(), &[ISSUER], 10_060, Ok(&[ISSUER])),
            ("over", claims(), &[ISSUER], 10_061, Err("the token has expired")),
            ("early", claims(), &[ISSUER], 4_940, Ok(&[ISSUER])),
            ("too early", claims(), &[ISSUER], 4_939, Err("the token is not valid yet")),
            (
                "made later",
                Claims { iat: 9_000, ..claims() },
                &[ISSUER],
                7_000,
                Err("the token is not valid yet"),
            ),
            (
                "of two minds",
                Claims { sub: "system:serviceaccount:ns:root".into(), ..claims() },
                &[ISSUER],
                7_000,
                Err("the token says two things of who it stands for"),
            ),
            (
                "of all times",
                Claims { exp: i64::MAX, nbf: i64::MIN, iat: i64::MIN, ..claims() },
                &[ISSUER],
                7_000,
                Ok(&[ISSUER]),
            ),
        ];
        for (what, claims, audiences, now, expected) in rows {
            let audiences: Vec<String> = audiences.iter().map(|it| (*it).to_owned()).collect();
            let expected = expected.map(|all| all.iter().map(|it| (*it).to_owned()).collect());
            let now = Timestamp::from_second(now).unwrap();
            assert_eq!(claims.judge(&audiences, now), expected, "{what}");
        }
        let far = Claims { exp: i64::MIN, ..claims() };
        assert!(far.judge(&api, Timestamp::MAX).is_err());
    }

    #[test]
    fn what_a_token_is_bound_to_must_be_the_same_and_not_gone() {
        let now = Timestamp::from_second(1_000).unwrap();
        let seen = |metadata: serde_json::Value| -> Seen {
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let claims = claims();
        let all: Vec<Need<'_>> = claims.needs().collect();
        assert_eq!(
            all.iter().map(|need| need.resource).collect::<Vec<_>>(),
            ["serviceaccounts", "pods"]
        );
        let at = |second: i64| Timestamp::from_second(second).unwrap().to_string();
        for (metadata, expected) in [
            (json!({"uid": "pu"}), true),
            (json!({"uid": "other"}), false),
            (json!({}), false),
            (json!({"uid": "pu", "deletionTimestamp": at(2_000)}), true),
            (json!({"uid": "pu", "deletionTimestamp": at(940)}), true),
            (json!({"uid": "pu", "deletionTimestamp": at(939)}), false),
        ] {
            assert_eq!(all[1].is_met(&seen(metadata.clone()), now), expected, "{metadata}");
        }
        let of_node = Claims { bound: Bound { pod: None, ..claims.bound.clone() }, ..claims };
        assert_eq!(
            of_node.needs().last().unwrap().resource,
            "nodes",
            "without a pod the node counts"
        );
    }

    #[test]
    fn an_account_is_in_the_groups_of_all_and_of_its_namespace_and_says_its_pod() {
        let user = claims().user();
        assert_eq!(user.name, "system:serviceaccount:ns:robot");
        assert_eq!(user.uid, "su");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns"]);
        let expected = [
            ("authentication.kubernetes.io/credential-id", "JTI=j"),
            ("authentication.kubernetes.io/node-name", "n1"),
            ("authentication.kubernetes.io/node-uid", "nu"),
            ("authentication.kubernetes.io/pod-name", "p"),
            ("authentication.kubernetes.io/pod-uid", "pu"),
        ];
        let told: Vec<_> = user.extra.iter().map(|(k, v)| (k.as_str(), v[0].as_str())).collect();
        assert_eq!(told, expected);
    }
}
