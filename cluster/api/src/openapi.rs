//! The OpenAPI documents, generated from the schema and resource tables.
//!
//! kubectl reads the v3 index and the one document that it needs: for `explain`, for the merge
//! keys of client-side `apply`, and to find the parameter `fieldValidation`, which makes it leave
//! validation to us. Documents are made once, when first asked for, and kept as bytes: whoever asks
//! again, and however often, costs nothing.

mod edition;
mod paths;
mod schemas;

use edition::Edition;

use crate::catalog::resources;
use crate::resource::Resource;
use serde_json::{Map, Value, json};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

/// The content type of [`V2_PROTOBUF`]. Clients ask for it with an `@` before the version, which
/// is no valid media type, and fail to read an answer that repeats that.
pub const V2_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What clients put into `Accept` for [`V2_PROTOBUF`].
pub const V2_PROTOBUF_ACCEPT: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The v2 document in protobuf, for clients that insist on one: it says that it is version 2.0.
pub const V2_PROTOBUF: [u8; 5] = *b"\x0a\x032.0";

/// The index of the v3 documents: the path of each with its hash.
pub fn v3_index() -> Value {
    let paths: Map<String, Value> = documents()
        .iter()
        .map(|(path, Document { hash, .. })| {
            (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
        })
        .collect();
    json!({ "paths": paths })
}

/// A document as it is sent.
#[derive(Debug)]
pub struct Document {
    /// The JSON.
    pub bytes: Vec<u8>,
    /// The hash under which it is cached.
    pub hash: String,
}

/// The v3 document of a path in the index (`api/v1`, `apis/batch/v1`).
pub fn v3(path: &str) -> Option<&'static Document> {
    documents().iter().find(|(known, _)| known == path).map(|(_, document)| document)
}

/// The v2 document in JSON, with everything that is served.
pub fn v2() -> &'static Document {
    static DOCUMENT: OnceLock<Document> = OnceLock::new();
    DOCUMENT.get_or_init(|| Document::of(&v2_document()))
}

impl Document {
    fn of(document: &Value) -> Self {
        let bytes = document.to_string().into_bytes();
        Self { hash: digest(&bytes), bytes }
    }
}

fn v3_document(path: &str) -> Option<Value> {
    let own: Vec<&Resource> = resources().iter().filter(|row| index_path(row) == path).collect();
    if own.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths::of(&own, Edition::V3),
        "components": {
            "schemas": schemas::of(&own, Edition::V3),
            "securitySchemes": {
                "BearerToken": {
                    "type": "apiKey",
                    "description": "Bearer token",
                    "name": "authorization",
                    "in": "header",
                },
            },
        },
    }))
}

fn v2_document() -> Value {
    let all: Vec<&Resource> = resources().iter().collect();
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths::of(&all, Edition::V2),
        "definitions": schemas::of(&all, Edition::V2),
    })
}

/// A hash of an answer, for its `ETag` and its place in caches; the same on every member.
pub fn digest(bytes: &[u8]) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        bytes.hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016X}{:016X}", half(0), half(1))
}

fn documents() -> &'static [(String, Document)] {
    static DOCUMENTS: OnceLock<Vec<(String, Document)>> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let mut paths: Vec<String> = resources().iter().map(index_path).collect();
        paths.sort();
        paths.dedup();
        let made = |path: String| Some((path.clone(), Document::of(&v3_document(&path)?)));
        paths.into_iter().filter_map(made).collect()
    })
}

/// `api/v1`, `apis/batch/v1`.
fn index_path(resource: &Resource) -> String {
    let root = if resource.group.is_empty() { "api" } else { "apis" };
    format!("{root}/{}", resource.api_version())
}

fn info() -> Value {
    json!({"title": "Impresario, as a Kubernetes API", "version": "v1.36.0"})
}

#[cfg(test)]
mod tests;
