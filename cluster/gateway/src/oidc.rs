//! What others verify tokens of service accounts with: who signs them, and the keys (OpenID Connect Discovery 1.0).

use crate::answer::{self, Body};
use crate::gateway::Gateway;
use hyper::Response;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use impresario_api::status::Status;
use impresario_objects::accounts::ISSUER;
use serde_json::json;

/// Where it stands who signs.
pub const CONFIGURATION: &str = "/.well-known/openid-configuration";
/// Where the keys stand.
pub const KEYS: &str = "/openid/v1/jwks";

/// For how long it may be kept, as Kubernetes has it.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// Who signs tokens, and where the keys are.
pub fn configuration(gateway: &Gateway) -> Result<Response<Body>, Status> {
    gateway.accounts().ok_or_else(Status::no_such_path)?;
    let document = json!({
        "issuer": ISSUER,
        "jwks_uri": format!("{ISSUER}{KEYS}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    kept("application/json", &document)
}

/// The keys.
pub async fn keys(gateway: &Gateway) -> Result<Response<Body>, Status> {
    let accounts = gateway.accounts().ok_or_else(Status::no_such_path)?;
    let keys = accounts.web_keys().await;
    kept("application/jwk-set+json", &keys.map_err(|why| Status::unavailable(why.to_string(), 1))?)
}

fn kept(kind: &'static str, document: &serde_json::Value) -> Result<Response<Body>, Status> {
    let bytes = serde_json::to_vec(document).map_err(Status::internal)?;
    let mut response = answer::bytes(200, kind, bytes);
    response.headers_mut().insert(CACHE_CONTROL, KEPT);
    Ok(response)
}
