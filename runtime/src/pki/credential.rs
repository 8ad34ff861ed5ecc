//! A certificate with its key and the authority that it trusts: all that a process needs to be someone.

use super::{
    PkiError, files,
    identity::{PeerIdentity, fingerprint},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use x509_parser::prelude::{FromDer, X509Certificate};

const CERTIFICATE_FILE: &str = "certificate.pem";
const KEY_FILE: &str = "key.pem";
const AUTHORITY_FILE: &str = "authority.pem";
/// In the order in which they are written; the last one says that all are there.
const FILES: [&str; 3] = [AUTHORITY_FILE, KEY_FILE, CERTIFICATE_FILE];

/// A certificate chain, its private key, and the cluster's authority. Cheap to clone; never prints the key.
#[derive(Clone)]
pub struct Credential(Arc<Parts>);

struct Parts {
    identity: PeerIdentity,
    certificate_pem: String,
    key_pem: String,
    authority_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authority: CertificateDer<'static>,
    valid: (SystemTime, SystemTime),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credential").field(&self.0.identity).finish()
    }
}

impl Credential {
    /// Puts a credential together from PEM texts.
    pub fn from_pem(certificate: &str, key: &str, authority: &str) -> Result<Self, PkiError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| PkiError::unusable("the certificate", format!("{error:?}")))?;
        let leaf = chain
            .first()
            .ok_or_else(|| PkiError::unusable("the certificate", "there is none in the file"))?;
        let key_der = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| PkiError::unusable("the private key", format!("{error:?}")))?;
        let authority_der =
            CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|error| {
                PkiError::unusable("the authority's certificate", format!("{error:?}"))
            })?;
        let identity = PeerIdentity::from_certificate(leaf)?;
        let valid = validity(leaf)?;
        Ok(Self(Arc::new(Parts {
            identity,
            valid,
            certificate_pem: certificate.to_owned(),
            key_pem: key.to_owned(),
            authority_pem: authority.to_owned(),
            key: key_der,
            authority: authority_der,
            chain,
        })))
    }

    /// Reads `certificate.pem`, `key.pem` and `authority.pem` of a folder. Ends a [`save`](Self::save) that was cut off, if
    /// it had come so far that all three were on the disk.
    pub fn load(folder: &Path) -> Result<Self, PkiError> {
        files::finish(folder, &FILES)?;
        let read = |name| files::read(&folder.join(name));
        Self::from_pem(&read(CERTIFICATE_FILE)?, &read(KEY_FILE)?, &read(AUTHORITY_FILE)?)
    }

    /// Writes the three files, readable by their owner alone: all of them or none, whenever it is cut off.
    pub fn save(&self, folder: &Path) -> Result<(), PkiError> {
        let texts = [self.authority_pem(), self.key_pem(), self.certificate_pem()];
        files::stage(folder, &FILES, &texts)?;
        files::finish(folder, &FILES)
    }

    /// Who this is.
    pub fn identity(&self) -> &PeerIdentity {
        &self.0.identity
    }

    /// The certificate chain as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.0.certificate_pem
    }

    /// The private key as PEM.
    pub fn key_pem(&self) -> &str {
        &self.0.key_pem
    }

    /// The authority's certificate as PEM.
    pub fn authority_pem(&self) -> &str {
        &self.0.authority_pem
    }

    /// SHA-256 of the authority's certificate, in hexadecimal.
    pub fn authority_fingerprint(&self) -> String {
        fingerprint(&self.0.authority)
    }

    /// From when until when the certificate holds.
    pub fn validity(&self) -> (SystemTime, SystemTime) {
        self.0.valid
    }

    /// Whether it is time for a new certificate: two thirds of its life are over.
    pub fn wants_renewal(&self, now: SystemTime) -> bool {
        let (from, until) = self.0.valid;
        let life = until.duration_since(from).unwrap_or(Duration::ZERO);
        now >= from + life * 2 / 3
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.chain.clone()
    }

    /// The chain with the authority's own certificate, by which a newcomer recognises the cluster.
    pub(crate) fn chain_with_authority(&self) -> Vec<CertificateDer<'static>> {
        let mut chain = self.chain();
        chain.push(self.0.authority.clone());
        chain
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.0.key.clone_key()
    }

    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        &self.0.authority
    }
}

/// From when until when a certificate holds.
pub(crate) fn validity(der: &[u8]) -> Result<(SystemTime, SystemTime), PkiError> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| PkiError::unusable("the certificate", error))?;
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = certificate.validity();
    Ok((at(validity.not_before.timestamp()), at(validity.not_after.timestamp())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{ClusterAuthority, PeerRole};

    #[test]
    fn a_save_that_is_cut_off_leaves_the_old_credential_or_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let authority = ClusterAuthority::create("test").unwrap();
        let issue = || authority.issue("n1", PeerRole::Node, &[], Duration::from_hours(1)).unwrap();
        let (old, new) = (issue(), issue());
        old.save(folder.path()).unwrap();
        let texts = [new.authority_pem(), new.key_pem(), new.certificate_pem()];
        // Cut off while the files are laid down: the old one stands.
        for staged in 0..2 {
            for (name, text) in FILES.iter().zip(texts).take(staged) {
                files::write(&files::staged(folder.path(), name), text).unwrap();
            }
            let loaded = Credential::load(folder.path()).unwrap();
            assert_eq!(loaded.certificate_pem(), old.certificate_pem());
        }
        // Cut off after that, at any file: the new one.
        for moved in 0..3 {
            old.save(folder.path()).unwrap();
            files::stage(folder.path(), &FILES, &texts).unwrap();
            for name in &FILES[..moved] {
                let from = files::staged(folder.path(), name);
                std::fs::rename(from, folder.path().join(name)).unwrap();
            }
            let loaded = Credential::load(folder.path()).unwrap();
            let expected = (new.certificate_pem(), new.key_pem());
            assert_eq!((loaded.certificate_pem(), loaded.key_pem()), expected, "{moved}");
        }
        let names = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 3, "nothing is left beside them");
    }
}
