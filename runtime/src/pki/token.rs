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
const SECRET_BYTES: usize = 24;
const FINGERPRINT_BYTES: usize = 32;

/// What a machine joins a cluster with.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: [u8; SECRET_BYTES],
    authority: [u8; FINGERPRINT_BYTES],
}

/// Why a text is not a join token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is none, or was cut when copied.
    #[error(
        "this is no join token: copy the whole line that `imp token create` printed (it begins with imp1.)"
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
        Ok(Self { secret, authority: unhex(authority_fingerprint).ok_or(TokenError::Fingerprint)? })
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
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
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
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Malformed)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Malformed)?;
        let (secret, authority) =
            bytes.split_at_checked(SECRET_BYTES).ok_or(TokenError::Malformed)?;
        Ok(Self {
            secret: secret.try_into().map_err(|_| TokenError::Malformed)?,
            authority: authority.try_into().map_err(|_| TokenError::Malformed)?,
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
