//! Join tokens as the cluster keeps them: hashed, for one use, for a day at most. No IO.

use impresario_client::protocol::authority::{JoinError, JoinRole};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest life of a token.
pub const LONGEST: Duration = Duration::from_hours(24);
/// Under which tokens are kept in the registry; no part of the API.
pub const RESOURCE: &str = "impresario.dev/jointokens";
/// How long a machine that did not hear the answer may ask again with the same key.
const ANSWER_AGAIN: Duration = Duration::from_mins(10);
/// How much of the hash names a token to people.
const ID_LENGTH: usize = 10;

/// A token in the registry; the key is the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// What it makes of a machine.
    pub role: JoinRole,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What was made of it.
    pub used: Option<Use>,
}

/// How a token was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Use {
    /// The name that joined.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// The hash of the signing request: the same machine may ask again.
    pub request: String,
}

impl Token {
    /// Whether the token may be used for this signing request at `now`; the name that the same
    /// machine was given before, if it was.
    pub fn judge(&self, request: &str, now: Timestamp) -> Result<Option<&str>, JoinError> {
        match &self.used {
            Some(used) if used.request == request && now <= used.at + ANSWER_AGAIN => {
                Ok(Some(&used.by))
            }
            Some(used) => Err(JoinError::Used { by: used.by.clone(), at: used.at.to_string() }),
            None if now >= self.expires_at => {
                Err(JoinError::Expired { at: self.expires_at.to_string() })
            }
            None => Ok(None),
        }
    }

    /// Whether nobody needs to be told about it any more.
    pub fn is_forgotten(&self, now: Timestamp) -> bool {
        now >= self.expires_at + LONGEST
    }
}

/// What people call the token with this hash.
pub fn id(hash: &str) -> String {
    hash.chars().take(ID_LENGTH).collect()
}

/// The end of the name of every client, and of no node: a client cannot be taken for a node.
const OF_CLIENT: &str = ".client";

/// The name of who wants to be called `wanted`; `letters` make it unique where that is needed.
pub fn given_name(wanted: Option<&str>, role: JoinRole, letters: &str) -> String {
    match (role, wanted) {
        (JoinRole::Client, wanted) => {
            format!("{}-{letters}{OF_CLIENT}", wanted.unwrap_or("program"))
        }
        (_, Some(wanted)) => wanted.to_owned(),
        (_, None) => format!("node-{letters}"),
    }
}

/// Whether a node can have this name: a DNS subdomain, as Kubernetes wants it, that is no client's.
pub fn is_node_name(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty()
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 230 && !name.ends_with(OF_CLIENT) && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_until_it_expires_and_says_what_to_do_after() {
        let made = Timestamp::UNIX_EPOCH;
        let hour = Duration::from_hours(1);
        let mut token = Token { role: JoinRole::Node, expires_at: made + hour, used: None };
        assert_eq!(token.judge("r", made), Ok(None));
        let late = token.judge("r", made + hour).unwrap_err().to_string();
        assert_eq!(
            late,
            "the token expired at 1970-01-01T01:00:00Z: make a new one with `imp token create`"
        );
        token.used = Some(Use { by: "n7".into(), at: made, request: "r".into() });
        assert_eq!(token.judge("r", made), Ok(Some("n7")));
        assert!(
            matches!(token.judge("other", made), Err(JoinError::Used { by, .. }) if by == "n7")
        );
        assert!(matches!(token.judge("r", made + hour), Err(JoinError::Used { .. })));
        assert!(!token.is_forgotten(made + hour));
        assert!(token.is_forgotten(made + hour + LONGEST));
    }

    #[test]
    fn no_client_has_the_name_that_a_node_can_have() {
        let name = given_name(Some("n1"), JoinRole::Client, "abcdef");
        assert_eq!(name, "n1-abcdef.client");
        assert!(!is_node_name(&name));
        assert_eq!(given_name(Some("n1"), JoinRole::Node, "abcdef"), "n1");
        assert_eq!(given_name(None, JoinRole::Node, "abcdef"), "node-abcdef");
    }

    #[test]
    fn node_names_are_dns_subdomains() {
        for good in ["n1", "host.example", "a-b"] {
            assert!(is_node_name(good), "{good}");
        }
        for bad in ["", "N1", "-a", "a-", "a..b", "a_b", "a/b", "a b", "a.client", &"a".repeat(254)]
        {
            assert!(!is_node_name(bad), "{bad}");
        }
    }
}
