//! The file through which kubectl, client libraries and our own commands reach the API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a kubeconfig could not be used.
#[derive(Debug, Error)]
pub enum KubeconfigError {
    /// The file could not be read.
    #[error("{path}: {source}; is the cluster up? (`imp up`)")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not one that we wrote.
    #[error("{path} is not a kubeconfig of this program: {reason}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
}

/// What is in the file, in PEM.
#[derive(Debug, Clone)]
pub struct Kubeconfig {
    /// Where the API is served.
    pub server: SocketAddr,
    /// The certificate of the cluster's authority.
    pub authority: String,
    /// The user's certificate chain.
    pub certificate: String,
    /// The user's key.
    pub key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: String,
    client_key_data: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
struct File {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

impl Kubeconfig {
    /// The text of the file, for the cluster of this name.
    #[must_use]
    pub fn text(&self, cluster: &str) -> String {
        let Self { server, authority, certificate, key } = self;
        let [authority, certificate, key] =
            [authority, certificate, key].map(|pem| STANDARD.encode(pem));
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {cluster}\nclusters:\n- name: {cluster}\n  \
             cluster:\n    server: https://{server}\n    certificate-authority-data: {authority}\nusers:\n\
             - name: {cluster}-admin\n  user:\n    client-certificate-data: {certificate}\n    \
             client-key-data: {key}\ncontexts:\n- name: {cluster}\n  context:\n    cluster: {cluster}\n    \
             user: {cluster}-admin\n    namespace: default\n"
        )
    }

    /// Reads a file that [`Self::text`] wrote.
    pub fn load(path: &Path) -> Result<Self, KubeconfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| KubeconfigError::Io { path: path.to_owned(), source })?;
        let foreign = |reason: String| KubeconfigError::Foreign { path: path.to_owned(), reason };
        let file: File =
            serde_saphyr::from_str(&text).map_err(|error| foreign(error.to_string()))?;
        let cluster =
            file.clusters.into_iter().next().ok_or_else(|| foreign("no cluster".into()))?.cluster;
        let user = file.users.into_iter().next().ok_or_else(|| foreign("no user".into()))?.user;
        let server = cluster
            .server
            .strip_prefix("https://")
            .and_then(|server| server.parse().ok())
            .ok_or_else(|| foreign(format!("server {}", cluster.server)))?;
        let decode = |data: &str| {
            let bytes = STANDARD.decode(data).map_err(|error| foreign(error.to_string()))?;
            String::from_utf8(bytes).map_err(|error| foreign(error.to_string()))
        };
        Ok(Self {
            server,
            authority: decode(&cluster.certificate_authority_data)?,
            certificate: decode(&user.client_certificate_data)?,
            key: decode(&user.client_key_data)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let wrote = Kubeconfig {
            server: "127.0.0.1:6443".parse().unwrap(),
            authority: "-----A\n".into(),
            certificate: "-----C\n".into(),
            key: "-----K\n".into(),
        };
        std::fs::write(&path, wrote.text("imp")).unwrap();
        let read = Kubeconfig::load(&path).unwrap();
        assert_eq!(read.server, wrote.server);
        assert_eq!(read.authority, wrote.authority);
        assert_eq!(read.certificate, wrote.certificate);
        assert_eq!(read.key, wrote.key);
    }
}
