//! Where a webhook is, and whom its certificate must be of.

use base64::Engine as _;
use hyper::Uri;
use impresario_client::objects::stored::text;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// The port of a service where the configuration names none.
const USUAL_PORT: u16 = 443;
/// The largest bundle that is read.
const MAX_BUNDLE: usize = 1 << 20;

/// Where a webhook is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// At an address of its own.
    Url {
        /// The host, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// Behind a service of the cluster.
    Service {
        /// The namespace of the service.
        namespace: String,
        /// Its name.
        name: String,
        /// One of its ports.
        port: u16,
    },
}

/// Where a webhook is, and what it is asked with.
#[derive(Clone)]
pub(super) struct Target {
    /// Where.
    pub(super) place: Place,
    /// The path and query.
    pub(super) path: String,
    /// Whom to believe.
    pub(super) tls: Arc<ClientConfig>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("place", &self.place)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host();
        match &self.place {
            Place::Url { port, .. } | Place::Service { port, .. } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                write!(f, "https://{host}:{port}{}", self.path)
            }
        }
    }
}

impl Target {
    /// Reads a `clientConfig`.
    pub(super) fn read(config: &Value) -> Result<Self, String> {
        let bundle = text(config, "/caBundle");
        let url = text(config, "/url");
        if !url.is_empty() {
            let (place, path) = at_url(url)?;
            return Ok(Self { place, path, tls: trusting(bundle)? });
        }
        let service = &config["service"];
        let (namespace, name) = (text(service, "/namespace"), text(service, "/name"));
        if namespace.is_empty() || name.is_empty() {
            return Err("its clientConfig has neither a url nor a service".to_owned());
        }
        let port = service["port"].as_u64().map_or(Ok(USUAL_PORT), u16::try_from);
        let port = port.map_err(|_| "the port of its service is over 65535".to_owned())?;
        let path = text(service, "/path");
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            place: Place::Service { namespace: namespace.into(), name: name.into(), port },
            path: format!("{slash}{path}"),
            tls: trusting(bundle)?,
        })
    }

    /// The name that its certificate must have.
    pub(super) fn host(&self) -> String {
        match &self.place {
            Place::Url { host, .. } => host.clone(),
            Place::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }
}

fn at_url(url: &str) -> Result<(Place, String), String> {
    let uri: Uri = url.parse().map_err(|error| format!("its url {url:?}: {error}"))?;
    if uri.scheme_str() != Some("https") {
        return Err(format!("its url {url:?} must begin with https://"));
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    if host.is_empty() {
        return Err(format!("its url {url:?} names no host"));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Ok((Place::Url { host, port: uri.port_u16().unwrap_or(USUAL_PORT) }, path))
}

/// The authorities of this machine, read once: a bundle may be left out for a certificate that everybody knows.
static OF_THE_MACHINE: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "an authority of this machine cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    Arc::new(roots)
});

fn trusting(bundle: &str) -> Result<Arc<ClientConfig>, String> {
    let roots = if bundle.is_empty() {
        OF_THE_MACHINE.clone()
    } else {
        if bundle.len() > MAX_BUNDLE {
            return Err("its caBundle is over 1 MiB".to_owned());
        }
        let pem = base64::engine::general_purpose::STANDARD.decode(bundle);
        let pem = pem.map_err(|error| format!("its caBundle is no base64: {error}"))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate =
                certificate.map_err(|error| format!("its caBundle is no PEM: {error}"))?;
            roots.add(certificate).map_err(|error| format!("its caBundle: {error}"))?;
        }
        if roots.is_empty() {
            return Err("its caBundle has no certificate".to_owned());
        }
        Arc::new(roots)
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_target_is_a_url_of_https_or_a_service() {
        let shown = |config: Value| Target::read(&config).map(|target| target.to_string());
        for (config, expected) in [
            (json!({"url": "https://h.example.com/a/b?c=d"}), "https://h.example.com:443/a/b?c=d"),
            (json!({"url": "https://[::1]:8443"}), "https://[::1]:8443/"),
            (json!({"service": {"namespace": "n", "name": "s"}}), "https://s.n.svc:443/"),
            (
                json!({"service": {"namespace": "n", "name": "s", "path": "/p", "port": 8443}}),
                "https://s.n.svc:8443/p",
            ),
        ] {
            assert_eq!(shown(config).unwrap(), expected);
        }
        for (config, why) in [
            (json!({"url": "http://h/"}), "https://"),
            (json!({"url": "https:///x"}), "url"),
            (json!({}), "neither"),
            (json!({"service": {"namespace": "n", "name": "s", "port": 70000}}), "65535"),
            (json!({"url": "https://h/", "caBundle": "!"}), "base64"),
            (json!({"url": "https://h/", "caBundle": "YQ=="}), "no certificate"),
        ] {
            assert!(shown(config.clone()).unwrap_err().contains(why), "{config}");
        }
    }
}
