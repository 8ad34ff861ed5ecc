//! One request, taken apart: what every handler needs to know of it.

use crate::authenticate::User;
use crate::budget::{Holder, Over, Share};
use crate::busy::busy;
use crate::limits::Limits;
use crate::negotiate::{self, Encoding, Form, View};
use crate::query::Query;
use crate::request::{Action, ResourcePath};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use hyper::http::request::Parts;
use impresario_api::managed::LONGEST_MANAGER;
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_api::table::IncludeObject;
use impresario_api::wire::{self, DecodeError, Decoded, FieldValidation, Target};
use serde_json::Value;

/// A request with its body read.
#[derive(Debug)]
pub struct Call {
    /// Method, path and headers.
    pub parts: Parts,
    /// The decoded query.
    pub query: Query,
    /// The body.
    pub body: Bytes,
    /// On whose account it is answered: theirs whose credential was shown.
    pub asks: Holder,
    /// Who acts: who asks, or whom they impersonate.
    pub user: User,
    /// The header that said so, where none of the connection's certificates did.
    pub authorization: Option<String>,
}

/// A call to a resource that exists.
#[derive(Debug)]
pub struct ResourceCall {
    /// The request.
    pub call: Call,
    /// What it is about.
    pub resource: Row,
    /// The parts of its path.
    pub path: ResourcePath,
}

impl Call {
    fn header(&self, name: hyper::header::HeaderName) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The Accept header.
    pub fn accept(&self) -> Option<&str> {
        self.header(ACCEPT)
    }

    /// The type of the body.
    pub fn content_type(&self) -> &str {
        self.header(CONTENT_TYPE).unwrap_or_default()
    }

    /// Whether the body is applied.
    pub fn applies(&self) -> bool {
        let media = self.content_type().split(';').next().unwrap_or_default();
        media.trim().eq_ignore_ascii_case(wire::APPLY_YAML)
    }

    /// What the client calls itself: `kubectl` of `kubectl/v1.33.0 (linux/amd64)`, within what a manager may be called.
    pub fn agent(&self) -> String {
        let agent = self.header(USER_AGENT).unwrap_or_default();
        let name = agent.split('/').next().unwrap_or_default();
        // A header that could be read as text has only what can be printed in it.
        let name: String = name.chars().take(LONGEST_MANAGER).collect();
        if name.is_empty() { "unknown".to_owned() } else { name }
    }

    /// Whether the answer is for human eyes.
    pub fn pretty(&self) -> bool {
        if self.query.has("pretty") {
            return self.query.flag("pretty");
        }
        let agent = self.header(USER_AGENT).unwrap_or_default();
        ["curl", "Wget", "Mozilla/5.0"].iter().any(|human| agent.starts_with(human))
    }

    /// The form of the answer.
    pub fn form(&self, list: bool) -> Result<Form, Status> {
        negotiate::form(self.accept(), list)
            .ok_or_else(|| Status::not_acceptable(&["application/json", "application/yaml"]))
    }

    /// The form of an answer that is written as JSON only, such as a stream.
    pub fn json_view(&self, list: bool) -> Result<View, Status> {
        let form = self.form(list)?;
        if form.encoding != Encoding::Json {
            return Err(Status::not_acceptable(&["application/json"]));
        }
        Ok(form.view)
    }

    /// What a table carries of each object.
    pub fn include(&self) -> Result<IncludeObject, Status> {
        let word = self.query.get("includeObject").unwrap_or_default();
        IncludeObject::parse(word).ok_or_else(|| {
            Status::bad_request(format!("unrecognized includeObject value: {word:?}"))
        })
    }

    /// The body as an object of a kind.
    pub fn decode(
        &self,
        target: Target<'_>,
        validation: FieldValidation,
    ) -> Result<Decoded, Status> {
        wire::decode(target, self.content_type(), &self.body, validation)
            .map_err(|error| refused(&error))
    }

    /// The body as an object of a kind, or null where there is none.
    pub fn decode_if_any(&self, target: Target<'_>) -> Result<Value, Status> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        self.decode(target, FieldValidation::Ignore).map(|decoded| decoded.object)
    }
}

/// What a body that cannot be read is answered.
pub fn refused(error: &DecodeError) -> Status {
    match error {
        DecodeError::MediaType => {
            Status::unsupported_media_type(&[wire::JSON, wire::YAML, wire::PROTOBUF])
        }
        DecodeError::NoProtobuf => Status::unsupported_media_type(&[wire::JSON, wire::YAML]),
        DecodeError::TooLarge => Status::too_large(wire::MAX_BODY_BYTES),
        other => Status::bad_request(other.to_string()),
    }
}

/// A kind of the shared machinery, such as `DeleteOptions`.
pub fn known(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
) -> Result<Target<'static>, Status> {
    Target::of(group, version, kind)
        .ok_or_else(|| Status::internal(format!("no schema for {kind}")))
}

/// The kind that a resource's objects are.
pub fn target_of(resource: &Row) -> Target<'_> {
    resource.target()
}

/// Most bytes of a body that only says how something is to be done, such as `DeleteOptions`.
const OPTIONS_BYTES: usize = 64 * 1024;

/// How much of a body a request needs. What needs none leaves it unread: nobody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// None.
    Nothing,
    /// Options.
    Options,
    /// An object, or a change of one.
    Object,
}

impl Needs {
    /// What an action needs.
    pub fn of(action: Action) -> Self {
        match action {
            Action::Get | Action::List | Action::Watch => Self::Nothing,
            Action::Delete | Action::DeleteCollection => Self::Options,
            Action::Create | Action::Update | Action::Patch => Self::Object,
        }
    }
}

/// Reads as much of a body as is needed, in so much time and of so many bytes at most, as the limits
/// have it, and takes its share of the bytes that all bodies together may have.
pub async fn read(
    parts: &Parts,
    body: Incoming,
    needs: Needs,
    limits: &Limits,
    share: &mut Share,
) -> Result<Bytes, Status> {
    let limit = match needs {
        Needs::Nothing => return Ok(Bytes::new()),
        Needs::Options => limits.body_bytes.min(OPTIONS_BYTES),
        Needs::Object => limits.body_bytes,
    };
    let claimed = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if claimed
        .and_then(|text| text.parse::<u64>().ok())
        .is_some_and(|claimed| claimed > limit as u64)
    {
        return Err(Status::too_large(limit)); // refused unread
    }
    if let Some(encoding) = parts.headers.get(CONTENT_ENCODING).filter(|it| *it != "identity") {
        // Nothing is unpacked: a small body cannot become a large one.
        let mut status = Status::unsupported_media_type(&[wire::JSON, wire::YAML, wire::PROTOBUF]);
        status.message = format!("bodies are not taken as {encoding:?}: send this one as it is");
        return Err(status);
    }
    tokio::time::timeout(limits.body, collect(body, limit, share)).await.unwrap_or_else(|_| {
        Err(Status::timeout(format!(
            "the body of the request did not arrive within {:?}",
            limits.body
        )))
    })
}

async fn collect(mut body: Incoming, limit: usize, share: &mut Share) -> Result<Bytes, Status> {
    // Not as much as was announced: only what has come takes room.
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Status::bad_request(format!("the body of the request could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > limit {
            return Err(Status::too_large(limit));
        }
        match share.grow(length) {
            Ok(()) => {}
            Err(Over::Now) => return Err(busy("the bodies of other requests")),
            Err(Over::Ever(most)) => return Err(Status::too_large(most)),
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}
