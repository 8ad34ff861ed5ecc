//! Certificates: who is who in a cluster.
//!
//! One authority per cluster (`CN` is the cluster's name) signs every certificate. A certificate says name (`CN`), role
//! (`O`, `impresario:control` and so on) and, for a guest, its scope (`OU`). All keys are ECDSA P-256 by ring, and lie in
//! files of mode 0600.

mod authority;
mod credential;
mod files;
mod identity;
mod request;
pub(crate) mod tls;
mod token;

pub use authority::{ClusterAuthority, KeyRequest};
pub use credential::Credential;
pub(crate) use credential::validity;
pub use identity::{PeerIdentity, PeerRole};
pub use request::SigningRequest;
pub use tls::{ALPN_JOIN, ALPN_NODE, https_server_config, tls_client_config};
pub use token::{JoinToken, TokenError};

use std::{io, path::PathBuf};
use thiserror::Error;

/// Why a key or certificate does not serve.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{path}: {source}; check that the folder exists and belongs to this user")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate, key or request cannot be made or read.
    #[error("{what} is not usable: {detail}")]
    Unusable {
        /// What it is.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A certificate does not say what one of ours says.
    #[error(
        "the certificate is not one of an Impresario cluster ({detail}): get one from the cluster's authority"
    )]
    NotOurs {
        /// What is missing.
        detail: String,
    },
}

impl PkiError {
    fn unusable(what: &'static str, detail: impl ToString) -> Self {
        Self::Unusable { what, detail: detail.to_string() }
    }
}
