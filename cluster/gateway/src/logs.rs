//! Where logs come from: the actor of the pod, on the pod's node.
//!
//! [`LogSource`] is all that the gateway knows; [`RuntimeLogs`] asks over the runtime, on a stream of
//! its own that the client's reading speed holds back. What can be refused is refused before the first
//! byte, in the words that Kubernetes uses.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use impresario_api::status::Status;
use impresario_client::protocol::pod::{LogChunk, Logs, PodRole, actor_name};
use impresario_runtime::{ActorNode, ActorPath, AskError, ItemStream, StreamError};
use serde_json::Value;
use std::io;
use std::time::Duration;

/// The bytes of a log as they come.
pub type LogBytes = BoxStream<'static, io::Result<Bytes>>;

/// Opens logs of pods.
pub trait LogSource: Send + Sync + 'static {
    /// Opens the log that `ask` means of this pod.
    fn open<'a>(&'a self, pod: &'a Value, ask: Logs) -> BoxFuture<'a, Result<LogBytes, Status>>;
}

/// How long a pod's actor has to take the request.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// How long the first bytes, or a refusal in their place, are waited for before the answer begins.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Logs from the actors of pods.
#[derive(Clone)]
pub struct RuntimeLogs {
    node: ActorNode,
}

impl RuntimeLogs {
    /// Asks from this node.
    pub fn new(node: ActorNode) -> Self {
        Self { node }
    }
}

impl LogSource for RuntimeLogs {
    fn open<'a>(&'a self, pod: &'a Value, ask: Logs) -> BoxFuture<'a, Result<LogBytes, Status>> {
        Box::pin(async move {
            let text =
                |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let path = ActorPath::new(text("/spec/nodeName"), actor_name(text("/metadata/uid")));
            let actor = self.node.actor::<PodRole>(path);
            let container = ask.container.clone().unwrap_or_default();
            let opened = actor.open(ask, OPEN_DEADLINE).await;
            let mut items = opened.map_err(|error| refused(pod, &container, &error))?;
            // A stream that cannot start fails at once: that becomes the answer's code.
            match tokio::time::timeout(FIRST_WAIT, items.next()).await {
                Err(_) => Ok(bytes(items).boxed()),
                Ok(None) => Ok(stream::empty().boxed()),
                Ok(Some(Err(StreamError::Refused { reason }))) => Err(Status::bad_request(reason)),
                Ok(Some(Err(error))) => Err(Status::unavailable(error.to_string(), 1)),
                Ok(Some(Ok(first))) => {
                    Ok(stream::iter([Ok(Bytes::from(first.bytes))]).chain(bytes(items)).boxed())
                }
            }
        })
    }
}

fn bytes(
    items: ItemStream<LogChunk>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
    items.map(|item| item.map(|chunk| Bytes::from(chunk.bytes)).map_err(io::Error::other))
}

/// Why there is no log. A pod whose actor is not there yet has not started its containers.
fn refused(pod: &Value, container: &str, error: &AskError) -> Status {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = text("/metadata/name");
    match error {
        AskError::Refused { reason } => Status::bad_request(reason.clone()),
        AskError::NoSuchActor { .. } if matches!(text("/status/phase"), "" | "Pending") => {
            Status::bad_request(format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: ContainerCreating"
            ))
        }
        AskError::NoSuchActor { .. } | AskError::Stopped { .. } => {
            let node = text("/spec/nodeName");
            Status::internal(format!(
                "node {node} does not know pod {name}: it is ending, or its node restarts"
            ))
        }
        AskError::Overloaded { .. } => Status::too_many_requests(error.to_string(), 1),
        other => Status::unavailable(
            format!("logs of pod {name} on node {}: {other}", text("/spec/nodeName")),
            1,
        ),
    }
}
