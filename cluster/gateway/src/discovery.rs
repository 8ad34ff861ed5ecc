//! What is served: versions, groups, resources, OpenAPI documents, and whether we live.
//!
//! Everything here is read off the table of resources and the schema tables. Documents carry an ETag
//! and are not sent again to who has them.

use crate::answer::{self, Body};
use crate::call::Call;
use crate::gateway::Gateway;
use crate::negotiate::Media;
use crate::oidc;
use bytes::Bytes;
use hyper::Response;
use impresario_api::discovery::{self, Aggregated};
use impresario_api::openapi;
use impresario_api::status::Status;
use serde_json::{Value, json};

const JSON: &str = "application/json";
/// As it is asked for, and as it must be answered: clients do not parse the `@`.
const OPENAPI_V2_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const OPENAPI_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The version that clients compare with their own.
pub const GIT_VERSION: &str = concat!("v1.36.0+impresario.", env!("CARGO_PKG_VERSION"));

fn document(call: &Call, value: &Value) -> Result<Response<Body>, Status> {
    let bytes =
        if call.pretty() { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
    Ok(answer::cacheable(&call.parts.headers, JSON, bytes.map_err(Status::internal)?, false))
}

/// Everything below `/api` or `/apis` in one answer.
fn aggregated(call: &Call, form: Aggregated, core: bool) -> Result<Response<Body>, Status> {
    let bytes = serde_json::to_vec(&discovery::aggregated(form, core)).map_err(Status::internal)?;
    Ok(answer::cacheable(&call.parts.headers, form.content_type(), bytes, false))
}

/// The resources of one group version.
pub fn group_version(call: &Call, group: &str, version: &str) -> Result<Response<Body>, Status> {
    let list = discovery::api_resource_list(group, version).ok_or_else(Status::no_such_path)?;
    document(call, &list)
}

/// One group and its versions.
pub fn group(call: &Call, group: &str) -> Result<Response<Body>, Status> {
    let found = discovery::api_group(group).ok_or_else(Status::no_such_path)?;
    document(call, &found)
}

/// Everything that is no resource.
pub async fn path(gateway: &Gateway, call: &Call, path: &str) -> Result<Response<Body>, Status> {
    let form = aggregated_form(call.accept());
    match (path, form) {
        ("/", _) => document(call, &paths()),
        ("/api", Some(form)) => aggregated(call, form, true),
        ("/apis", Some(form)) => aggregated(call, form, false),
        ("/api", None) => document(call, &discovery::api_versions(&gateway.address())),
        ("/apis", None) => document(call, &discovery::api_group_list()),
        ("/version", _) => Ok(answer::json(200, &version(), call.pretty())),
        (oidc::CONFIGURATION, _) => oidc::configuration(gateway),
        (oidc::KEYS, _) => oidc::keys(gateway).await,
        ("/openapi/v2", _) => Ok(openapi_v2(call)),
        ("/openapi/v3", _) => document(call, &openapi::v3_index()),
        ("/healthz" | "/livez" | "/healthz/ping" | "/livez/ping", _) => Ok(answer::text(200, "ok")),
        ("/readyz" | "/readyz/registry", _) => ready(gateway).await,
        _ => match path.strip_prefix("/openapi/v3/") {
            Some(group_version) => openapi_v3(call, group_version),
            None => Err(Status::no_such_path()),
        },
    }
}

/// The aggregated form that the client wants first, if it wants one before the plain form.
fn aggregated_form(accept: Option<&str>) -> Option<Aggregated> {
    Media::list(accept.unwrap_or_default())
        .iter()
        .find_map(|media| match (media.kind, media.parameter("as")) {
            (JSON, Some("APIGroupDiscoveryList"))
                if media.parameter("g") == Some("apidiscovery.k8s.io") =>
            {
                match media.parameter("v") {
                    Some("v2") => Some(Some(Aggregated::V2)),
                    Some("v2beta1") => Some(Some(Aggregated::V2Beta1)),
                    _ => None,
                }
            }
            (JSON | "*/*" | "application/*", None) => Some(None),
            _ => None,
        })
        .flatten()
}

fn paths() -> Value {
    let mut paths: Vec<String> = vec!["/api".into(), "/api/v1".into(), "/apis".into()];
    for row in impresario_api::catalog::resources().iter() {
        for path in [format!("/apis/{}", row.group), format!("/apis/{}/{}", row.group, row.version)]
        {
            if !row.group.is_empty() && !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    for path in [
        oidc::CONFIGURATION,
        "/healthz",
        "/livez",
        oidc::KEYS,
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ] {
        paths.push(path.into());
    }
    json!({ "paths": paths })
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// The name that Kubernetes has for this architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn openapi_v2(call: &Call) -> Response<Body> {
    let media = Media::list(call.accept().unwrap_or_default());
    let protobuf = media.iter().find_map(|media| match media.kind {
        OPENAPI_V2_ASKED | OPENAPI_V2 => Some(true),
        JSON | "*/*" => Some(false),
        _ => None,
    });
    if protobuf == Some(true) {
        let bytes = Bytes::from_static(&openapi::V2_PROTOBUF);
        return answer::cacheable(&call.parts.headers, OPENAPI_V2, bytes, false);
    }
    let bytes = Bytes::from_owner(openapi::v2().bytes);
    answer::cacheable(&call.parts.headers, JSON, bytes, false)
}

/// A document is asked for with the hash of its content, and kept for ever under it.
fn openapi_v3(call: &Call, group_version: &str) -> Result<Response<Body>, Status> {
    let document = openapi::v3(group_version).ok_or_else(Status::no_such_path)?;
    let forever = call.query.get("hash") == Some(document.hash.as_str());
    let bytes = Bytes::from_owner(document.bytes);
    Ok(answer::cacheable(&call.parts.headers, JSON, bytes, forever))
}

/// Ready means that the registry answers.
async fn ready(gateway: &Gateway) -> Result<Response<Body>, Status> {
    Ok(match gateway.readiness().ask(gateway.objects().registry()).await {
        Ok(()) => answer::text(200, "ok"),
        Err(why) => answer::text(500, format!("registry: {why}\n")),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::authenticate::tests::Lagging;
    use crate::logs::LogSource;
    use futures_util::future::BoxFuture;
    use futures_util::stream::BoxStream;
    use impresario_client::protocol::pod::Logs;
    use impresario_objects::rbac::Roles;
    use impresario_objects::{Objects, Reader};
    use std::sync::Arc;

    struct NoLogs;

    impl LogSource for NoLogs {
        fn open<'a>(
            &'a self,
            _: &'a Value,
            _: Logs,
        ) -> BoxFuture<'a, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>> {
            Box::pin(async { Err(Status::no_such_path()) })
        }
    }

    #[tokio::test]
    async fn whoever_asks_whether_we_are_ready_does_not_ask_the_registry_each_time() {
        let counts = Arc::new(Lagging::default());
        let roles = Roles::follow(&Reader::new(counts.clone()));
        let gateway = Gateway::new(Objects::new(counts.clone()), roles, Arc::new(NoLogs));
        for _ in 0..500 {
            assert_eq!(ready(&gateway).await.unwrap().status(), 200);
        }
        // One a second: on a machine that stands still now and then it may be more than one.
        assert!((1..100).contains(&counts.asked()), "{}", counts.asked());
    }

    #[test]
    fn the_aggregated_form_that_comes_first_is_given() {
        let new = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                   application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let unknown =
            "application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList,application/json";
        assert!(matches!(aggregated_form(Some(new)), Some(Aggregated::V2)));
        assert!(matches!(aggregated_form(Some(old)), Some(Aggregated::V2Beta1)));
        for plain in [Some(unknown), Some("application/json"), None] {
            assert!(aggregated_form(plain).is_none(), "{plain:?}");
        }
    }
}
