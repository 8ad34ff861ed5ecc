//! What the objects of a cluster can be asked by message. Every control member answers.
//!
//! Each message says who sends it; the gate of the receiving member lets none pass whose sender is not
//! the holder of the connection's certificate, so that its actor may believe it.

use bytes::Bytes;
use impresario_api::status::{Cause, CauseReason, Reason, Status};
use impresario_registry_api::{
    Committed, Consistency, Entry, Fence, Key, ListRequest, Page, ReadError, Revision,
    TransactError, WatchBatch, WatchError, WatchRequest,
};
use impresario_runtime::{Lane, PeerIdentity, PeerRole, message, role, stream_message};
use serde::{Deserialize, Serialize};
use std::any::Any;

/// The most that a message with an object in it may have: the largest body of a request, and who sends it.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// The name of the actor that serves [`ObjectsRole`] on every control member.
pub const OBJECTS_ACTOR: &str = "objects";

/// Who sends a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The name in its certificate.
    pub name: String,
    /// The role in its certificate.
    pub role: PeerRole,
}

impl Sender {
    /// Whether a certificate says the same.
    pub fn is(&self, peer: &PeerIdentity) -> bool {
        self.name == peer.node.as_str() && self.role == peer.role
    }
}

/// Asks for one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// Who asks.
    pub sender: Sender,
    /// Which.
    pub key: Key,
    /// How fresh.
    pub consistency: Consistency,
}
message!(Get => Result<(Option<Entry>, Revision), ReadError>, "objects.Get");

/// Asks for a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Who asks.
    pub sender: Sender,
    /// Of what.
    pub request: ListRequest,
}
message!(List => Result<Page, ReadError>, "objects.List");

/// Asks to be told of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// Who asks.
    pub sender: Sender,
    /// Of what.
    pub request: WatchRequest,
}
stream_message!(Follow => Result<WatchBatch, WatchError>, "objects.Follow");

/// Replaces or removes exactly the state of an object that its sender has seen. Nodes write so what
/// they own: no admission changes what they tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    /// Who asks.
    pub sender: Sender,
    /// Which object.
    pub key: Key,
    /// The revision that it must be at.
    pub at: Revision,
    /// The object as it is to be; nothing to remove it.
    pub value: Option<Bytes>,
}
message!(Settle => Result<Committed, TransactError>, "objects.Settle", Lane::Work, MAX_REQUEST_BYTES);

/// Creates an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// Who asks.
    pub sender: Sender,
    /// `group/plural`, or the plural alone for the core group.
    pub resource: String,
    /// The namespace; empty at cluster scope.
    pub namespace: String,
    /// The object as JSON.
    pub object: Bytes,
    /// Do everything but the write.
    pub dry_run: bool,
}
message!(Create => Result<Bytes, Refusal>, "objects.Create", Lane::Work, MAX_REQUEST_BYTES);

/// Which part of an object is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// All but the status.
    Main,
    /// The status.
    Status,
    /// The replica count.
    Scale,
    /// The finalizers of a namespace's spec.
    Finalize,
}

/// How a patch is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// The object itself, in place of what is there.
    Whole,
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// Kubernetes' merge by the keys of lists.
    Strategic,
}

/// Changes an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Who asks.
    pub sender: Sender,
    /// `group/plural`, or the plural alone for the core group.
    pub resource: String,
    /// The namespace; empty at cluster scope.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// Which part.
    pub part: Part,
    /// How `body` is meant.
    pub form: Form,
    /// JSON.
    pub body: Bytes,
    /// Do everything but the write.
    pub dry_run: bool,
}
message!(Change => Result<Bytes, Refusal>, "objects.Change", Lane::Work, MAX_REQUEST_BYTES);

/// Changes an object by right of an activation: what is asked of the actor of an object. Once another member holds the
/// shard nothing is changed, and another is to be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencedChange {
    /// What is asked for, and who asks.
    pub change: Change,
    /// The right of the actor that passes it on.
    pub fence: Fence,
}
message!(FencedChange => Result<Bytes, Refusal>, "objects.FencedChange", Lane::Work, MAX_REQUEST_BYTES);

/// Deletes an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// Who asks.
    pub sender: Sender,
    /// `group/plural`, or the plural alone for the core group.
    pub resource: String,
    /// The namespace; empty at cluster scope.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// Seconds that a pod gets to end.
    pub grace_period_seconds: Option<i64>,
    /// What becomes of what it owns: `Background`, `Foreground` or `Orphan`.
    pub propagation: String,
    /// The uid that it must have.
    pub uid: Option<String>,
    /// The resource version that it must have.
    pub resource_version: Option<String>,
    /// Do everything but the write.
    pub dry_run: bool,
}
message!(Delete => Result<Gone, Refusal>, "objects.Delete");

/// What a deletion came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// The object as it was at last, or as it lingers.
    pub object: Bytes,
    /// Whether it is still there, marked, until what holds it lets go.
    pub lingers: bool,
}

/// Gives a pod its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Who asks.
    pub sender: Sender,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The node's name.
    pub node: String,
    /// The uid that the pod must have.
    pub uid: Option<String>,
    /// The resource version that the pod must have.
    pub resource_version: Option<String>,
    /// Do everything but the write.
    pub dry_run: bool,
}
message!(Bind => Result<Bytes, Refusal>, "objects.Bind");

/// How often a role was refused by a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The role that asked.
    pub role: String,
    /// The rule, or the message where the role may not send it at all.
    pub rule: String,
    /// How often since the process started.
    pub count: u64,
}

/// Asks how often who was refused what, by this member's gate and rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountRefusals;
message!(CountRefusals => Vec<Refused>, "objects.CountRefusals");

role! {
    /// The objects of a cluster, behind the rules.
    pub ObjectsRole = "objects" {
        asks: [Get, List, Settle, Create, Change, FencedChange, Delete, Bind, CountRefusals],
        streams: [Follow]
    }
}

/// Who sends this message, if it is one that says so.
pub fn sender(message: &dyn Any) -> Option<&Sender> {
    fn of<M: 'static>(message: &dyn Any, sender: fn(&M) -> &Sender) -> Option<&Sender> {
        message.downcast_ref().map(sender)
    }
    of(message, |it: &Get| &it.sender)
        .or_else(|| of(message, |it: &List| &it.sender))
        .or_else(|| of(message, |it: &Follow| &it.sender))
        .or_else(|| of(message, |it: &Settle| &it.sender))
        .or_else(|| of(message, |it: &Create| &it.sender))
        .or_else(|| of(message, |it: &Change| &it.sender))
        .or_else(|| of(message, |it: &FencedChange| &it.change.sender))
        .or_else(|| of(message, |it: &Delete| &it.sender))
        .or_else(|| of(message, |it: &Bind| &it.sender))
}

/// A [`Status`] as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The reason's word in the API.
    pub reason: String,
    /// What a person reads.
    pub message: String,
    /// The object it is about.
    pub name: String,
    /// Its API group.
    pub group: String,
    /// Its plural or kind.
    pub kind: String,
    /// Every wrong field: where, the reason's word, what a person reads.
    pub causes: Vec<(String, String, String)>,
    /// After how many seconds asking again makes sense.
    pub retry_after: Option<u32>,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let causes = status.causes.into_iter();
        Self {
            reason: status.reason.as_str().into(),
            message: status.message,
            name: status.name,
            group: status.group,
            kind: status.kind,
            causes: causes
                .map(|cause| (cause.field, cause.reason.as_str().into(), cause.message))
                .collect(),
            retry_after: status.retry_after,
        }
    }
}

/// Every reason, so that its word can be read back.
const REASONS: [Reason; 18] = [
    Reason::BadRequest,
    Reason::Unauthorized,
    Reason::Forbidden,
    Reason::NotFound,
    Reason::MethodNotAllowed,
    Reason::NotAcceptable,
    Reason::AlreadyExists,
    Reason::Conflict,
    Reason::Expired,
    Reason::Gone,
    Reason::RequestEntityTooLarge,
    Reason::UnsupportedMediaType,
    Reason::Invalid,
    Reason::TooManyRequests,
    Reason::InternalError,
    Reason::ServiceUnavailable,
    Reason::ServerTimeout,
    Reason::Timeout,
];

/// Every reason of a cause.
const CAUSES: [CauseReason; 12] = [
    CauseReason::NotFound,
    CauseReason::Required,
    CauseReason::Duplicate,
    CauseReason::Invalid,
    CauseReason::NotSupported,
    CauseReason::Forbidden,
    CauseReason::TooLong,
    CauseReason::TooMany,
    CauseReason::TypeInvalid,
    CauseReason::Conflict,
    CauseReason::ResourceVersionTooLarge,
    CauseReason::Unexpected,
];

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        // A word that this build does not know comes from a newer member: something failed there.
        let reason = REASONS.into_iter().find(|reason| reason.as_str() == refusal.reason);
        let cause = |word: &str| CAUSES.into_iter().find(|reason| reason.as_str() == word);
        let causes = refusal.causes.into_iter().map(|(field, word, message)| Cause {
            field,
            reason: cause(&word).unwrap_or(CauseReason::Unexpected),
            message,
        });
        Self {
            reason: reason.unwrap_or(Reason::InternalError),
            message: refusal.message,
            name: refusal.name,
            group: refusal.group,
            kind: refusal.kind,
            causes: causes.collect(),
            retry_after: refusal.retry_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_its_journey() {
        for reason in REASONS {
            let causes = CAUSES.map(|reason| Cause {
                field: "spec".into(),
                reason,
                message: "is wrong".into(),
            });
            let status = Status {
                name: "a".into(),
                group: "batch".into(),
                kind: "jobs".into(),
                causes: causes.into(),
                retry_after: Some(1),
                ..Status::new(reason, "no")
            };
            assert_eq!(Status::from(Refusal::from(status.clone())), status);
        }
    }
}
