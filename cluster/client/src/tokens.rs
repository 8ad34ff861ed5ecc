//! Bearer tokens as the registry keeps them: under their digest, never themselves.
//!
//! Written by whoever lets somebody in (the authority, for the accounts of pods), read by the gateway.

use impresario_registry_api::Key;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// The resource of the registry.
pub const RESOURCE: &str = "impresario.dev/tokens";

/// What the registry keeps about a bearer token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredToken {
    /// The user it stands for.
    pub user: String,
    /// That user's groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Seconds since 1970 after which it is worth nothing; never when absent.
    #[serde(default)]
    pub expires: Option<i64>,
    /// The pod without which it is worth nothing.
    #[serde(default)]
    pub pod: Option<BoundPod>,
}

/// A pod by name and uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: another pod of that name is not meant.
    pub uid: String,
}

/// The SHA-256 digest of a token, in hexadecimal.
#[must_use]
pub fn hash_token(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether a text can be what [`hash_token`] gives.
#[must_use]
pub fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Where the token with this digest is kept.
#[must_use]
pub fn key(hash: &str) -> Key {
    Key::new(RESOURCE, "", hash)
}
