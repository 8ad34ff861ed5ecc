//! The certificates that `imp up` gives: to this machine's user, and to the nodes that it makes.

use super::error::UpError;
use crate::kubeconfig::Kubeconfig;
use crate::layout::{ClusterDir, ClusterFile, replace};
use impresario_runtime::pki::PkiError;
use impresario_runtime::{ClusterAuthority, Credential, PeerRole, clock};
use std::net::IpAddr;
use std::time::Duration;

/// How long certificates of users are good for; `imp up` makes new ones in time.
const USER_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

/// What this user's commands and kubectl show to the cluster.
pub fn equip_users(
    dir: &ClusterDir,
    cluster: &ClusterFile,
    authority: &ClusterAuthority,
) -> Result<(), UpError> {
    let (certificate, key) = user_certificate(authority, "kubernetes-admin", "system:masters")?;
    let kubeconfig = Kubeconfig {
        server: cluster.api,
        authority: authority.certificate_pem().to_owned(),
        certificate,
        key,
    };
    replace(&dir.kubeconfig(), kubeconfig.text(&cluster.name).as_bytes())?;
    // Saved last: its age tells that of both.
    authority.issue("imp-admin", PeerRole::Admin, &[], USER_VALIDITY)?.save(&dir.admin())?;
    Ok(())
}

/// New certificates for users, and for nodes that do not run, where the old ones near their end: a
/// cluster that was down for long comes up again. Nodes that run renew their own.
pub fn renew_certificates(dir: &ClusterDir, cluster: &ClusterFile) -> Result<(), UpError> {
    let now = clock::wall();
    let authority = ClusterAuthority::load(&dir.pki())?;
    if Credential::load(&dir.admin())?.wants_renewal(now) {
        equip_users(dir, cluster, &authority)?;
    }
    for node in dir.nodes()? {
        let old = Credential::load(&node.credential())?;
        if node.is_running() || !old.wants_renewal(now) {
            continue;
        }
        let file = node.load()?;
        let role = old.identity().role.clone();
        issue_for(&authority, &file.name, role, file.advertise.ip(), cluster)?
            .save(&node.credential())?;
    }
    Ok(())
}

/// A certificate for a node of this machine.
pub fn issue_for(
    authority: &ClusterAuthority,
    name: &str,
    role: PeerRole,
    ip: IpAddr,
    cluster: &ClusterFile,
) -> Result<Credential, PkiError> {
    authority.issue(name, role, &[name.to_owned(), ip.to_string()], cluster.certificate_lifetime)
}

/// A client certificate for the REST API: the user is the common name, the group the organization.
fn user_certificate(
    authority: &ClusterAuthority,
    user: &str,
    group: &str,
) -> Result<(String, String), rcgen::Error> {
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
    let issuer = Issuer::from_ca_cert_pem(
        authority.certificate_pem(),
        KeyPair::from_pem(&authority.key_pem())?,
    )?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let now = clock::wall();
    params.not_before = (now - Duration::from_secs(300)).into();
    params.not_after = (now + USER_VALIDITY).into();
    let certificate = params.signed_by(&key, &issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
