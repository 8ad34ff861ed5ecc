//! Where sessions with pods come from: the actor of the pod, on the pod's node.
//!
//! [`SessionSource`] is all that the gateway knows; [`RuntimeSessions`] opens two streams over the runtime, one each way,
//! of which each is held back by whoever reads it. What can be refused is refused before anything is answered.

mod entrance;

use entrance::Entrance;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use impresario_api::status::Status;
use impresario_client::protocol::pod::{PodRole, actor_name};
use impresario_client::protocol::session::Session;
use impresario_runtime::{ActorNode, ActorPath, AskError};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::mpsc;

pub use impresario_client::protocol::session::{Output, Typed, With};

/// What comes from a session. Without [`Output::Ended`] it was cut; an error says why, and is the last.
pub type SessionOutput = BoxStream<'static, Result<Output, String>>;

/// What is typed, as it comes. Its end without [`Typed::End`] cuts the session.
pub type SessionInput = mpsc::Receiver<Typed>;

/// Opens sessions at pods.
pub trait SessionSource: Send + Sync + 'static {
    /// Opens a session at this pod; dropping what comes from it cuts it.
    fn open<'a>(
        &'a self,
        pod: &'a Value,
        with: With,
        input: Option<SessionInput>,
    ) -> BoxFuture<'a, Result<SessionOutput, Status>>;
}

/// How long a pod's actor has to take the request: to start a command, or to connect to a port.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);

/// Sessions with the actors of pods.
#[derive(Clone)]
pub struct RuntimeSessions {
    node: ActorNode,
}

impl RuntimeSessions {
    /// Opens them from this node.
    pub fn new(node: ActorNode) -> Self {
        Self { node }
    }
}

impl SessionSource for RuntimeSessions {
    fn open<'a>(
        &'a self,
        pod: &'a Value,
        with: With,
        input: Option<SessionInput>,
    ) -> BoxFuture<'a, Result<SessionOutput, Status>> {
        Box::pin(async move {
            let text =
                |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let node = text("/spec/nodeName");
            let entrance = match input {
                Some(input) => Some(Entrance::open(&self.node, node, input)?),
                None => None,
            };
            let path = ActorPath::new(node, actor_name(text("/metadata/uid")));
            let input = entrance.as_ref().map(|entrance| entrance.path().clone());
            let opened =
                self.node.actor::<PodRole>(path).open(Session { with, input }, OPEN_DEADLINE);
            let items = opened.await.map_err(|error| refused(pod, &error))?;
            Ok(items.map(|item| item.map_err(|error| error.to_string())).boxed())
        })
    }
}

/// Why there is no session.
fn refused(pod: &Value, error: &AskError) -> Status {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (name, node) = (text("/metadata/name"), text("/spec/nodeName"));
    match error {
        AskError::Refused { reason } => Status::bad_request(reason.clone()),
        AskError::NoSuchActor { .. } | AskError::Stopped { .. } => Status::internal(format!(
            "node {node} does not know pod {name}: it is starting or ending, or its node restarts"
        )),
        AskError::Overloaded { .. } => Status::too_many_requests(error.to_string(), 1),
        other => Status::unavailable(format!("pod {name} on node {node}: {other}"), 1),
    }
}
