//! The OpenAPI documents, generated from the schema and resource tables.
//!
//! kubectl reads the v3 index and the one document that it needs: for `explain`, for the merge
//! keys of client-side `apply`, and to find the parameter `fieldValidation`, which makes it leave
//! validation to us. Documents are made once, when first asked for, and kept as bytes for as long as the kinds
//! in them are served as they are: whoever asks again, and however often, costs nothing.

mod edition;
mod paths;
mod schemas;

use edition::Edition;

use crate::catalog::{served, unkept};
use crate::resource::{Resource, Row};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

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
        .map(|Kept { path, document, .. }| {
            let hash = &document.hash;
            (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
        })
        .collect();
    json!({ "paths": paths })
}

/// A document as it is sent.
#[derive(Debug, Clone)]
pub struct Document {
    /// The JSON.
    pub bytes: Arc<[u8]>,
    /// The hash under which it is cached.
    pub hash: String,
}

/// The v3 document of a path in the index (`api/v1`, `apis/batch/v1`).
pub fn v3(path: &str) -> Option<Document> {
    documents().iter().find(|kept| kept.path == path).map(|kept| kept.document.clone())
}

/// The v2 document in JSON, with everything that is served.
pub fn v2() -> Document {
    static KEPT: Mutex<Option<Kept>> = Mutex::new(None);
    let rows = with_unkept(&served().resources());
    let mut kept = KEPT.lock();
    if let Some(kept) = kept.as_ref().filter(|kept| kept.is_of(&rows)) {
        return kept.document.clone();
    }
    let document = Document::of(&v2_document(&rows));
    *kept = Some(Kept { path: String::new(), rows, document: document.clone() });
    document
}

/// What is kept, and what is only answered.
fn with_unkept(rows: &[Row]) -> Vec<Row> {
    rows.iter().chain(unkept()).cloned().collect()
}

/// A document, and the rows of which it was made.
#[derive(Clone)]
struct Kept {
    path: String,
    rows: Vec<Row>,
    document: Document,
}

impl Kept {
    fn is_of(&self, rows: &[Row]) -> bool {
        self.rows.len() == rows.len()
            && self.rows.iter().zip(rows).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl Document {
    fn of(document: &Value) -> Self {
        let bytes = document.to_string().into_bytes();
        Self { hash: digest(&bytes), bytes: bytes.into() }
    }
}

/// The v3 document of the rows of one path.
fn v3_document(own: &[Row]) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths::of(own, Edition::V3),
        "components": {
            "schemas": schemas::of(own, Edition::V3),
            "securitySchemes": {
                "BearerToken": {
                    "type": "apiKey",
                    "description": "Bearer token",
                    "name": "authorization",
                    "in": "header",
                },
            },
        },
    })
}

fn v2_document(all: &[Row]) -> Value {
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths::of(all, Edition::V2),
        "definitions": schemas::of(all, Edition::V2),
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

/// The v3 documents of now, by their paths. When kinds come and go, those of other groups stay as they are.
fn documents() -> Arc<[Kept]> {
    static KEPT: Mutex<Option<(u64, Arc<[Kept]>)>> = Mutex::new(None);
    let mut last = KEPT.lock();
    let (rows, generation) = served().all();
    if let Some((_, kept)) = last.as_ref().filter(|(of, _)| *of == generation) {
        return Arc::clone(kept);
    }
    let mut paths: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in with_unkept(&rows) {
        paths.entry(index_path(&row)).or_default().push(row);
    }
    let made = |(path, rows): (String, Vec<Row>)| {
        let mut before = last.iter().flat_map(|(_, kept)| kept.iter());
        let same = before.find(|kept| kept.path == path && kept.is_of(&rows));
        same.cloned().unwrap_or_else(|| {
            let document = Document::of(&v3_document(&rows));
            Kept { path, rows, document }
        })
    };
    let kept: Arc<[Kept]> = paths.into_iter().map(made).collect();
    *last = Some((generation, Arc::clone(&kept)));
    kept
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
