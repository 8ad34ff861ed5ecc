//! The cluster's authority: the one key that makes certificates.
//!
//! What a request asks for is never taken over: a signed request contributes its public key alone, and name, role and
//! validity are decided by whoever calls [`ClusterAuthority::sign_csr`].

use super::{Credential, PeerRole, PkiError, files, identity::fingerprint, tls::SERVER_NAME};
use impresario_ambient::clock;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use ring::hmac;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{fmt, path::Path, time::Duration};

const CERTIFICATE_FILE: &str = "authority.pem";
const KEY_FILE: &str = "authority-key.pem";
const AUTHORITY_VALIDITY: Duration = Duration::from_hours(10 * 365 * 24);
/// Certificates hold from a little earlier, for clocks that are behind ours.
const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// The key and certificate of a cluster's authority.
pub struct ClusterAuthority {
    cluster: String,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl fmt::Debug for ClusterAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterAuthority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl ClusterAuthority {
    /// A new authority for a new cluster.
    pub fn create(cluster: &str) -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(|error| PkiError::unusable("a new key", error))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, cluster);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, AUTHORITY_VALIDITY);
        let certificate = params
            .self_signed(&key)
            .map_err(|error| PkiError::unusable("the authority's certificate", error))?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Puts an authority together from PEM texts.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, PkiError> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|error| {
            PkiError::unusable("the authority's certificate", format!("{error:?}"))
        })?;
        let key = KeyPair::from_pem(key)
            .map_err(|error| PkiError::unusable("the authority's key", error))?;
        let cluster = super::identity::subject_name(&der)?;
        Ok(Self { cluster, certificate_pem: certificate.to_owned(), certificate: der, key })
    }

    /// Reads `authority.pem` and `authority-key.pem` of a folder.
    pub fn load(folder: &Path) -> Result<Self, PkiError> {
        Self::from_pem(
            &files::read(&folder.join(CERTIFICATE_FILE))?,
            &files::read(&folder.join(KEY_FILE))?,
        )
    }

    /// Writes the two files, readable by their owner alone.
    pub fn save(&self, folder: &Path) -> Result<(), PkiError> {
        files::write(&folder.join(KEY_FILE), &self.key_pem())?;
        files::write(&folder.join(CERTIFICATE_FILE), &self.certificate_pem)
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The authority's certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key as PEM: hand it to control members alone.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// SHA-256 of the authority's certificate, in hexadecimal: what a join token pins.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// What only holders of the authority's key know, all of them alike, and a different thing for each purpose. It says
    /// nothing of the key.
    pub fn secret(&self, purpose: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key.serialize_der());
        let tag = hmac::sign(&key, purpose.as_bytes());
        // A tag of HMAC-SHA256 has 32 bytes.
        let mut secret = [0; 32];
        secret.copy_from_slice(tag.as_ref());
        secret
    }

    /// A new key with a certificate for it. `sans` are DNS names and addresses that HTTPS clients will use.
    pub fn issue(
        &self,
        name: &str,
        role: PeerRole,
        sans: &[String],
        validity: Duration,
    ) -> Result<Credential, PkiError> {
        let request = KeyRequest::generate()?;
        let certificate = self.sign(name, &role, sans, validity, &request.key)?;
        request.into_credential(&certificate.pem(), &self.certificate_pem)
    }

    /// A certificate for the public key of a signing request, with the name and role that the caller decided. PEM.
    pub fn sign_csr(
        &self,
        csr_pem: &str,
        name: &str,
        role: &PeerRole,
        sans: &[String],
        validity: Duration,
    ) -> Result<String, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|error| PkiError::unusable("the signing request", error))?;
        Ok(self.sign(name, role, sans, validity, &request.public_key)?.pem())
    }

    /// A certificate that lets its holder be a client of the API, and is good for nothing else.
    pub(super) fn sign_client(
        &self,
        name: &str,
        organization: Option<&str>,
        validity: Duration,
        key: &impl PublicKeyData,
    ) -> Result<Certificate, PkiError> {
        let unusable = |error| PkiError::unusable("the certificate", error);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, validity);
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key).map_err(unusable)?;
        params.signed_by(key, &issuer).map_err(unusable)
    }

    fn sign(
        &self,
        name: &str,
        role: &PeerRole,
        sans: &[String],
        validity: Duration,
        key: &impl PublicKeyData,
    ) -> Result<Certificate, PkiError> {
        let unusable = |error| PkiError::unusable("the certificate", error);
        let names: Vec<_> =
            std::iter::once(SERVER_NAME.to_owned()).chain(sans.iter().cloned()).collect();
        let mut params = CertificateParams::new(names).map_err(unusable)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, role.organization());
        if let PeerRole::Guest { scope } = role {
            params.distinguished_name.push(DnType::OrganizationalUnitName, scope.as_str());
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !role.is_shared() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, validity);
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key).map_err(unusable)?;
        params.signed_by(key, &issuer).map_err(unusable)
    }
}

fn set_validity(params: &mut CertificateParams, validity: Duration) {
    let now = clock::wall();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + validity).into();
}

/// A private key that waits for its certificate: what a joining machine makes and never sends.
pub struct KeyRequest {
    key: KeyPair,
    /// The same whenever it is asked for: by it the authority knows who asks again.
    csr_pem: String,
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRequest")
    }
}

impl KeyRequest {
    /// A new key.
    pub fn generate() -> Result<Self, PkiError> {
        Self::with(KeyPair::generate().map_err(|error| PkiError::unusable("a new key", error))?)
    }

    /// The key that a credential has already: only its certificate is to be replaced.
    pub fn of(credential: &Credential) -> Result<Self, PkiError> {
        Self::with(
            KeyPair::from_pem(credential.key_pem())
                .map_err(|error| PkiError::unusable("the private key", error))?,
        )
    }

    /// The request that lies in a file, or a new one that lies there from now on (readable by its owner alone): what
    /// was asked for by a process that did not hear the answer can be asked for again.
    pub fn kept(path: &Path) -> Result<Self, PkiError> {
        if !path.exists() {
            let new = Self::generate()?;
            files::write(path, &format!("{}{}", new.csr_pem, new.key.serialize_pem()))?;
            return Ok(new);
        }
        let text = files::read(path)?;
        let unusable = |detail: &str| PkiError::unusable("the kept signing request", detail);
        let end = "-----END CERTIFICATE REQUEST-----";
        let at = text.find(end).ok_or_else(|| unusable("it is not whole"))? + end.len();
        let at = text[at..].find('-').map_or(text.len(), |more| at + more);
        let (csr_pem, key) = text.split_at(at);
        let key = KeyPair::from_pem(key).map_err(|error| unusable(&error.to_string()))?;
        Ok(Self { key, csr_pem: csr_pem.to_owned() })
    }

    fn with(key: KeyPair) -> Result<Self, PkiError> {
        let unusable = |error| PkiError::unusable("the signing request", error);
        let params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).map_err(unusable)?;
        let request = params.serialize_request(&key).and_then(|request| request.pem());
        Ok(Self { csr_pem: request.map_err(unusable)?, key })
    }

    /// The signing request for it, as PEM.
    #[must_use]
    pub fn csr_pem(&self) -> &str {
        &self.csr_pem
    }

    /// The key with the certificate that came back.
    pub fn into_credential(
        self,
        certificate_pem: &str,
        authority_pem: &str,
    ) -> Result<Credential, PkiError> {
        Credential::from_pem(certificate_pem, &self.key.serialize_pem(), authority_pem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::PeerIdentity;
    use std::os::unix::fs::PermissionsExt;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn holders_of_the_key_know_the_same_secret_for_each_purpose() {
        let authority = ClusterAuthority::create("west").unwrap();
        let (certificate, key) = (authority.certificate_pem(), authority.key_pem());
        let again = ClusterAuthority::from_pem(certificate, &key).unwrap();
        assert_eq!(authority.secret("a"), again.secret("a"));
        assert_ne!(authority.secret("a"), authority.secret("b"));
        assert_ne!(authority.secret("a"), ClusterAuthority::create("west").unwrap().secret("a"));
    }

    #[test]
    fn a_certificate_says_name_role_scope_and_cluster() {
        let authority = ClusterAuthority::create("west").unwrap();
        let role = PeerRole::Guest { scope: "default/digits/trainer-1".into() };
        let credential = authority.issue("trainer-1", role.clone(), &[], DAY).unwrap();

        let identity = credential.identity();
        assert_eq!(
            (identity.node.as_str(), &identity.role, &*identity.cluster),
            ("trainer-1", &role, "west")
        );
        assert_eq!(credential.authority_fingerprint(), authority.fingerprint());
        let read = PeerIdentity::from_pem(credential.certificate_pem()).unwrap();
        assert_eq!(&read, credential.identity());
    }

    #[test]
    fn a_signing_request_gets_the_name_that_the_authority_decides() {
        let authority = ClusterAuthority::create("west").unwrap();
        let request = KeyRequest::generate().unwrap();
        let pem = authority
            .sign_csr(request.csr_pem(), "node-7", &PeerRole::Node, &["10.0.0.7".into()], DAY)
            .unwrap();
        let credential = request.into_credential(&pem, authority.certificate_pem()).unwrap();
        assert_eq!(credential.identity().node.as_str(), "node-7");
        assert_eq!(credential.identity().role, PeerRole::Node);
    }

    #[test]
    fn a_request_that_is_kept_is_the_same_when_it_is_asked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("joining.pem");
        let asked = KeyRequest::kept(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = KeyRequest::kept(&path).unwrap();
        assert_eq!(again.csr_pem(), asked.csr_pem());
        assert_eq!(again.key.serialize_pem(), asked.key.serialize_pem());
        let authority = ClusterAuthority::create("west").unwrap();
        authority.sign_csr(again.csr_pem(), "n", &PeerRole::Node, &[], DAY).unwrap();
        std::fs::write(&path, &asked.csr_pem()[..40]).unwrap();
        assert!(KeyRequest::kept(&path).is_err());
    }

    #[test]
    fn what_is_saved_is_private_and_loads_again() {
        let folder = tempfile::tempdir().unwrap();
        let authority = ClusterAuthority::create("west").unwrap();
        authority.save(folder.path()).unwrap();
        authority
            .issue("a", PeerRole::Control, &[], DAY)
            .unwrap()
            .save(&folder.path().join("a"))
            .unwrap();

        let again = ClusterAuthority::load(folder.path()).unwrap();
        assert_eq!((again.cluster(), again.fingerprint()), ("west", authority.fingerprint()));
        let credential = Credential::load(&folder.path().join("a")).unwrap();
        assert_eq!(credential.identity().role, PeerRole::Control);
        for file in ["authority-key.pem", "a/key.pem"] {
            let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn renewal_is_due_after_two_thirds_of_a_certificates_life() {
        let authority = ClusterAuthority::create("west").unwrap();
        let credential = authority.issue("a", PeerRole::Node, &[], DAY).unwrap();
        let now = clock::wall();
        assert!(!credential.wants_renewal(now + DAY / 2));
        assert!(credential.wants_renewal(now + DAY * 3 / 4));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Credential::load(Path::new("/nonexistent/folder")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/folder/certificate.pem"), "{error}");
    }
}
