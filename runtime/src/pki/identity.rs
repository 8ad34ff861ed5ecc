//! What a certificate says about its holder.

use super::PkiError;
use crate::name::NodeName;
use ring::digest;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::fmt::Write;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// What the holder of a certificate is to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum PeerRole {
    /// A control member: holds the registry, runs controllers.
    Control,
    /// A machine that runs pods.
    Node,
    /// A pod's own process, for its own job alone.
    Guest {
        /// What it belongs to, such as `namespace/job/pod`.
        scope: String,
    },
    /// A program that uses the SDK.
    Client,
    /// An operator.
    Admin,
}

impl PeerRole {
    pub(super) fn organization(&self) -> &'static str {
        match self {
            Self::Control => "impresario:control",
            Self::Node => "impresario:node",
            Self::Guest { .. } => "impresario:guest",
            Self::Client => "impresario:client",
            Self::Admin => "impresario:admin",
        }
    }

    fn read(organization: &str, scope: Option<&str>) -> Option<Self> {
        Some(match organization {
            "impresario:control" => Self::Control,
            "impresario:node" => Self::Node,
            "impresario:guest" => Self::Guest { scope: scope?.to_owned() },
            "impresario:client" => Self::Client,
            "impresario:admin" => Self::Admin,
            _ => return None,
        })
    }

    /// Whether many processes may hold one certificate of this role at a time.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Client | Self::Admin)
    }
}

/// Who the other end of a connection is, from its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// Its name.
    pub node: NodeName,
    /// Its role.
    pub role: PeerRole,
    /// Its cluster.
    pub cluster: String,
    /// SHA-256 of its certificate, in hexadecimal.
    pub fingerprint: String,
}

impl PeerIdentity {
    /// The name that peers see: that of the certificate, or of this one process where many share a certificate.
    pub(crate) fn shown_name(&self, incarnation: u64) -> NodeName {
        if self.role.is_shared() {
            format!("{}~{incarnation:x}", self.node).into()
        } else {
            self.node.clone()
        }
    }
}

impl PeerIdentity {
    /// Reads a certificate that TLS has verified already.
    pub fn from_certificate(der: &[u8]) -> Result<Self, PkiError> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| PkiError::unusable("the certificate", error))?;
        let missing = |detail: &str| PkiError::NotOurs { detail: detail.to_owned() };
        let subject = certificate.subject();
        let node = common_name(subject).ok_or_else(|| missing("it has no common name"))?;
        let organization =
            first(subject.iter_organization()).ok_or_else(|| missing("it has no organization"))?;
        let scope = first(subject.iter_organizational_unit());
        let role = PeerRole::read(&organization, scope.as_deref())
            .ok_or_else(|| missing("its organization names no role"))?;
        let cluster = common_name(certificate.issuer())
            .ok_or_else(|| missing("its issuer has no common name"))?;
        Ok(Self { node: node.into(), role, cluster, fingerprint: fingerprint(der) })
    }

    /// The same of a certificate in PEM, the first where there are more.
    pub fn from_pem(certificate: &str) -> Result<Self, PkiError> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| PkiError::unusable("the certificate", error))?;
        Self::from_certificate(&der)
    }
}

fn common_name(name: &X509Name<'_>) -> Option<String> {
    first(name.iter_common_name())
}

fn first<'a>(
    mut attributes: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Option<String> {
    attributes.next()?.as_str().ok().map(str::to_owned)
}

/// SHA-256 in hexadecimal.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, der).as_ref())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The common name of a certificate's subject.
pub(super) fn subject_name(der: &[u8]) -> Result<String, PkiError> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| PkiError::unusable("the certificate", error))?;
    common_name(certificate.subject())
        .ok_or_else(|| PkiError::NotOurs { detail: "it has no common name".to_owned() })
}
