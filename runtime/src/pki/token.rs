//! Join tokens: a secret and the fingerprint of the authority, in one line that a person can paste.
//!
//! The fingerprint lets the newcomer recognise the cluster before it says anything; the secret lets the cluster recognise
//! the newcomer. Keep only [`JoinToken::secret_hash`]; expiry, use and role are the join door's business.

use super::identity::{fingerprint, hex};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use std::{fmt, str::FromStr};
use thiserror::Error;

const PREFIX: &str = "imp1.";
/// Of those that make a client: whoever wants to be something else knows before the token is used.
const OF_CLIENT: &str = "imp1c.";
const SECRET_BYTES: usize = 24;
const FINGERPRINT_BYTES: usize = 32;

/// What a machine joins a cluster with.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: [u8; SECRET_BYTES],
    authority: [u8; FINGERPRINT_BYTES],
    for_client: bool,
}

/// Why a text is not a join token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is none, or was cut when copied.
    #[error(
        "this is no join token: copy the whole line that `imp token create` printed (it begins with imp1)"
    )]
    Malformed,
    /// The authority's fingerprint is not one.
    #[error("not a SHA-256 fingerprint in hexadecimal")]
    Fingerprint,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoRandomness,
}

impl JoinToken {
    /// A new token for the cluster whose authority has this fingerprint.
    pub fn create(authority_fingerprint: &str) -> Result<Self, TokenError> {
        let mut secret = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut secret).map_err(|_| TokenError::NoRandomness)?;
        let authority = unhex(authority_fingerprint).ok_or(TokenError::Fingerprint)?;
        Ok(Self { secret, authority, for_client: false })
    }

    /// The same, and its text says that it makes a client. What it really makes is the join door's business.
    #[must_use]
    pub fn for_client(self) -> Self {
        Self { for_client: true, ..self }
    }

    /// Whether its text says that it makes a client.
    pub fn is_for_client(&self) -> bool {
        self.for_client
    }

    /// The secret, as it is sent to the join door.
    pub fn secret(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.secret)
    }

    /// What the cluster keeps instead of the secret.
    pub fn secret_hash(&self) -> String {
        Self::hash_of(&self.secret())
    }

    /// The hash of a secret that came in a join request.
    pub fn hash_of(secret: &str) -> String {
        fingerprint(secret.as_bytes())
    }

    /// The fingerprint of the cluster's authority, in hexadecimal.
    pub fn authority_fingerprint(&self) -> String {
        hex(&self.authority)
    }
}

fn unhex(text: &str) -> Option<[u8; FINGERPRINT_BYTES]> {
    let mut bytes = [0; FINGERPRINT_BYTES];
    if text.len() != 2 * FINGERPRINT_BYTES || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<u8> = self.secret.iter().chain(&self.authority).copied().collect();
        let prefix = if self.for_client { OF_CLIENT } else { PREFIX };
        write!(f, "{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("authority", &self.authority_fingerprint())
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let (encoded, for_client) = match text.strip_prefix(OF_CLIENT) {
            Some(encoded) => (encoded, true),
            None => (text.strip_prefix(PREFIX).ok_or(TokenError::Malformed)?, false),
        };
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Malformed)?;
        let (secret, authority) =
            bytes.split_at_checked(SECRET_BYTES).ok_or(TokenError::Malformed)?;
        Ok(Self {
            secret: secret.try_into().map_err(|_| TokenError::Malformed)?,
            authority: authority.try_into().map_err(|_| TokenError::Malformed)?,
            for_client,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_survives_being_printed_and_pasted_and_does_not_show_its_secret() {
        let token = JoinToken::create(&"ab".repeat(32)).unwrap();
        assert_eq!(format!(" {token}\n").parse(), Ok(token.clone()));
        let client = token.clone().for_client();
        assert_eq!(client.to_string().parse(), Ok(client.clone()));
        assert!(client.is_for_client() && !token.is_for_client());
        assert_eq!(client.secret_hash(), token.secret_hash());
        assert!(!format!("{token:?}").contains(&token.secret()));
        assert_ne!(token.secret_hash(), JoinToken::create(&"ab".repeat(32)).unwrap().secret_hash());
    }

    proptest! {
        #[test]
        fn any_other_text_is_refused_without_panic(text in ".{0,90}") {
            prop_assert_eq!(text.parse::<JoinToken>(), Err(TokenError::Malformed));
            prop_assert_eq!(format!("imp1.{text}").parse::<JoinToken>().is_ok(), false);
        }
    }
}
