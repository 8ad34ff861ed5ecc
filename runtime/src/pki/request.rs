//! A request for a certificate that a user of the API made, and the certificate for it.
//!
//! Unlike the cluster's own such a certificate carries the name and the group that the request asks for: whether they
//! may be given is decided by whoever calls [`ClusterAuthority::sign_user`]. It serves no server and no actor, whatever
//! it says: [`SigningRequest::organizations`] of the cluster's own roles are refused here.

use super::{ClusterAuthority, PkiError};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, KeyPair,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use std::time::Duration;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

/// What organizations of the cluster's own certificates begin with.
const OWN: &str = "impresario:";

/// What a request asks for. Its signature holds: who made it has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest {
    der: Vec<u8>,
    /// The common names of its subject, by which the user is called.
    pub common_names: Vec<String>,
    /// The organizations of its subject, by which the user's groups are called.
    pub organizations: Vec<String>,
    /// Whether it asks for names or addresses besides.
    pub has_other_names: bool,
}

impl SigningRequest {
    /// Reads a request in PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, PkiError> {
        let unusable = |detail: String| PkiError::unusable("the signing request", detail);
        let der = CertificateSigningRequestDer::from_pem_slice(pem)
            .map_err(|error| unusable(error.to_string()))?;
        // Checks the signature.
        CertificateSigningRequestParams::from_der(&der)
            .map_err(|error| unusable(error.to_string()))?;
        let (_, request) = X509CertificationRequest::from_der(&der)
            .map_err(|error| unusable(error.to_string()))?;
        let subject = &request.certification_request_info.subject;
        let texts = |attributes: &mut dyn Iterator<
            Item = &x509_parser::x509::AttributeTypeAndValue<'_>,
        >| {
            let texts = attributes.map(|it| it.as_str().map(ToOwned::to_owned));
            texts
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| unusable("its subject is no text".to_owned()))
        };
        let common_names = texts(&mut subject.iter_common_name())?;
        let organizations = texts(&mut subject.iter_organization())?;
        let has_other_names = request
            .requested_extensions()
            .into_iter()
            .flatten()
            .any(|it| matches!(it, ParsedExtension::SubjectAlternativeName(_)));
        Ok(Self { der: der.to_vec(), common_names, organizations, has_other_names })
    }

    /// A request of a new key for this user and group, and the key: both in PEM, the request first.
    pub fn generate_pem(user: &str, group: Option<&str>) -> Result<(String, String), PkiError> {
        let unusable = |error: rcgen::Error| PkiError::unusable("the signing request", error);
        let key = KeyPair::generate().map_err(unusable)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        let request = params.serialize_request(&key).and_then(|request| request.pem());
        Ok((request.map_err(unusable)?, key.serialize_pem()))
    }

    /// Whether it asks to be one of the cluster's own: an operator, a control member, a node, a program.
    pub fn asks_for_role(&self) -> bool {
        self.organizations.iter().any(|it| it.starts_with(OWN))
    }
}

impl ClusterAuthority {
    /// A certificate for clients of the API with the user and the group of a request, good for so long. PEM.
    pub fn sign_user(
        &self,
        request: &SigningRequest,
        validity: Duration,
    ) -> Result<String, PkiError> {
        let unusable = |detail: &str| PkiError::unusable("the signing request", detail);
        if request.asks_for_role() {
            return Err(unusable("its organization is one of the cluster's own certificates"));
        }
        let [name] = &*request.common_names else {
            return Err(unusable("it must have one common name: the user"));
        };
        let organization = match &*request.organizations {
            [] => None,
            [one] => Some(one.as_str()),
            _ => return Err(unusable("certificates are made for one organization at most")),
        };
        let params = CertificateSigningRequestParams::from_der(&request.der.as_slice().into())
            .map_err(|error| unusable(&error.to_string()))?;
        Ok(self.sign_client(name, organization, validity, &params.public_key)?.pem())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::PeerIdentity;
    use x509_parser::prelude::X509Certificate;

    fn request(names: &[(DnType, &str)]) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    fn organization(name: &'static str) -> (DnType, &'static str) {
        (DnType::OrganizationName, name)
    }

    const ANN: (DnType, &str) = (DnType::CommonName, "ann");

    #[test]
    fn a_certificate_is_for_the_user_and_the_group_that_were_asked_for_and_no_peer_s() {
        let authority = ClusterAuthority::create("west").unwrap();
        let request = request(&[ANN, organization("dev")]);
        let request = SigningRequest::from_pem(request.as_bytes()).unwrap();
        assert_eq!(request.organizations, ["dev"]);
        let pem = authority.sign_user(&request, Duration::from_hours(1)).unwrap();
        assert!(PeerIdentity::from_pem(&pem).is_err(), "no role");
        let der = rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=ann, O=dev");
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(certificate.subject_alternative_name().unwrap().is_none());
    }

    #[test]
    fn nobody_becomes_a_part_of_the_cluster_by_a_request() {
        let authority = ClusterAuthority::create("west").unwrap();
        let other = DnType::CustomDnType(vec![2, 5, 4, 10]);
        for names in [
            vec![ANN, organization("impresario:admin")],
            vec![ANN, organization("impresario:control")],
            vec![ANN, organization("dev"), (other.clone(), "impresario:node")],
            vec![ANN, organization("dev"), (other, "ops")],
            vec![organization("dev")],
        ] {
            let request = SigningRequest::from_pem(request(&names).as_bytes()).unwrap();
            let signed = authority.sign_user(&request, Duration::from_hours(1));
            assert!(signed.is_err(), "{names:?}");
        }
        assert!(SigningRequest::from_pem(b"hello").is_err());
    }
}
