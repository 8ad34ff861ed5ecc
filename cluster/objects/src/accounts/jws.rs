//! Signed texts in their compact form (RFC 7515), with ES256 alone (RFC 7518, section 3.4).
//!
//! On `ring`, which is here anyway: the crates that make such tokens come with aws-lc, or with an RSA that leaks its
//! key through time. What a token says of its own algorithm chooses nothing: anything but ES256 is no signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

/// The longest token that is looked at.
pub const LONGEST: usize = 16 * 1024;
const ES256: &str = "ES256";
/// What stands before the two coordinates of a point that is written in full.
const IN_FULL: u8 = 4;

/// A key cannot be made or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the key of tokens of service accounts cannot be used: no token can be signed")]
pub struct KeyError;

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    /// What whoever reads the token must understand, too: nothing is, here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<Value>,
}

/// A key that signs.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

/// The half of a key that everybody may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: String,
    /// The point in full: a byte 4 and two coordinates of 32 bytes.
    point: Vec<u8>,
}

impl SigningKey {
    /// A new key in PKCS #8.
    pub fn generate() -> Result<Vec<u8>, KeyError> {
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map(|document| document.as_ref().to_vec())
            .map_err(|_| KeyError)
    }

    /// The key in a PKCS #8 document.
    pub fn of(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new());
        let pair = pair.map_err(|_| KeyError)?;
        let point = pair.public_key().as_ref().to_vec();
        let id = BASE64.encode(digest(&SHA256, &point));
        Ok(Self { pair, public: PublicKey { id, point } })
    }

    /// Its other half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A token that says this.
    pub fn sign(&self, payload: &[u8]) -> Result<String, KeyError> {
        let header = Header { alg: ES256.into(), kid: self.public.id.clone(), crit: None };
        let header = serde_json::to_vec(&header).map_err(|_| KeyError)?;
        let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(payload));
        let signature =
            self.pair.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| KeyError)?;
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }
}

impl PublicKey {
    /// The digest by which tokens name it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether a text can be what [`PublicKey::id`] gives: a SHA-256 digest in Base64.
    pub fn is_id(text: &str) -> bool {
        text.len() == 43
            && text.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'))
    }

    /// The key as a JSON Web Key (RFC 7517).
    pub fn jwk(&self) -> Value {
        let coordinates = self.point.strip_prefix(&[IN_FULL]).unwrap_or_default();
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": ES256,
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        })
    }
}

/// A token that has been taken apart, and not been believed yet.
pub struct Jws<'a> {
    header: Header,
    /// What it says.
    pub payload: Vec<u8>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Takes a token apart, if it is one of this form.
    pub fn read(token: &'a str) -> Option<Self> {
        if token.len() > LONGEST {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let decoded = |part: &str| BASE64.decode(part).ok();
        Some(Self {
            header: serde_json::from_slice(&decoded(header)?).ok()?,
            payload: decoded(payload)?,
            signed,
            signature: decoded(signature)?,
        })
    }

    /// The key that it says it is signed with.
    pub fn key(&self) -> &str {
        &self.header.kid
    }

    /// Whether this key has signed it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        self.header.alg == ES256
            && self.header.crit.is_none()
            && UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point)
                .verify(self.signed.as_bytes(), &self.signature)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::of(&SigningKey::generate().unwrap()).unwrap()
    }

    fn with_header(token: &str, header: &Value) -> String {
        let (_, rest) = token.split_once('.').unwrap();
        format!("{}.{rest}", BASE64.encode(header.to_string()))
    }

    #[test]
    fn a_token_is_believed_if_its_own_key_signed_all_of_it_with_es256() {
        let (mine, other) = (key(), key());
        let token = mine.sign(br#"{"sub":"a"}"#).unwrap();
        let id = mine.public().id();
        let (head, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = head.split_once('.').unwrap();
        let forged = format!("{header}.{}.{signature}", BASE64.encode(br#"{"sub":"b"}"#));
        let rows = [
            ("as it was made", token.clone(), mine.public(), true),
            ("another key", token.clone(), other.public(), false),
            ("another payload", forged, mine.public(), false),
            ("no signature", format!("{head}."), mine.public(), false),
            (
                "alg none",
                with_header(&token, &json!({"alg": "none", "kid": id})),
                mine.public(),
                false,
            ),
            (
                "alg HS256",
                with_header(&token, &json!({"alg": "HS256", "kid": id})),
                mine.public(),
                false,
            ),
        ];
        for (what, token, key, expected) in rows {
            let read = Jws::read(&token).unwrap();
            assert_eq!(read.key(), id, "{what}");
            assert_eq!(read.is_signed_by(key), expected, "{what}");
        }
        let critical = json!({"alg": ES256, "kid": id, "crit": ["b64"]}).to_string();
        let signed = format!("{}.{}", BASE64.encode(critical), BASE64.encode("{}"));
        let signature = mine.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", BASE64.encode(signature));
        assert!(!Jws::read(&token).unwrap().is_signed_by(mine.public()), "crit");
    }

    #[test]
    fn what_is_no_token_of_this_form_is_none() {
        let long = format!("{}.e30.e30", "a".repeat(LONGEST));
        for text in ["", "a", "a.b", "..", "e30.e30.!", "bm8.e30.e30", &long] {
            assert!(Jws::read(text).is_none(), "{text:.20}");
        }
    }

    #[test]
    fn the_public_half_is_told_as_a_web_key_of_two_coordinates() {
        let jwk = key().public().jwk();
        for field in ["x", "y"] {
            assert_eq!(BASE64.decode(jwk[field].as_str().unwrap()).unwrap().len(), 32, "{jwk}");
        }
        assert_eq!((&jwk["kty"], &jwk["crv"]), (&json!("EC"), &json!("P-256")));
    }
}
