//! The object of an actor, as whoever asks the actor may change it: through the one door to objects.
//!
//! The door judges who asks, admits and validates, as it does for a request over REST. Nothing is decided here but what
//! a request means for a kind.

use impresario_api::resource::{Resource, Row, resource_key};
use impresario_api::schema::{self, Field};
use impresario_api::status::{Reason, Status};
use impresario_client::objects::protocol::{
    Change, FencedChange, Form, OBJECTS_ACTOR, ObjectsRole, Part, Refusal, Sender,
};
use impresario_registry_api::{Fence, Revision};
use impresario_runtime::{ActorNode, AskError, Remedy};
use serde_json::{Value, json};
use std::time::Duration;

/// How long the door has.
const LIMIT: Duration = Duration::from_secs(20);

/// An object, at the door of this member.
#[derive(Debug, Clone)]
pub struct Itself {
    /// Where the door is.
    pub node: ActorNode,
    /// The object's kind.
    pub resource: Row,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: another object of the name is not changed.
    pub uid: String,
    /// The right by which its actor lives: once another member has its shard nothing is changed here. Somebody may have
    /// been told since that it is otherwise.
    pub fence: Fence,
}

impl Itself {
    /// Asks for so many copies.
    pub async fn scale(self, sender: Sender, replicas: u32) -> Result<Revision, Refusal> {
        let Some(paths) = &self.resource.scale else { return Err(self.unable("scaled")) };
        let set = json!({ "op": "add", "path": paths.spec, "value": replicas });
        self.change(sender, Part::Scale, vec![set]).await
    }

    /// Asks for a pause, or for its end.
    pub async fn suspend(self, sender: Sender, suspend: bool) -> Result<Revision, Refusal> {
        let Resource { group, version, kind, .. } = &*self.resource;
        let spec = schema::for_kind(group, version, kind).and_then(|kind| kind.field("spec"));
        let field = spec.and_then(Field::message).and_then(|spec| spec.field("suspend"));
        if field.is_none() {
            return Err(self.unable("suspended"));
        }
        let set = json!({ "op": "add", "path": "/spec/suspend", "value": suspend });
        self.change(sender, Part::Main, vec![set]).await
    }

    fn unable(&self, what: &str) -> Refusal {
        let plural = &self.resource.plural;
        let why = format!("{plural} are not {what}: change or delete \"{}\" itself", self.name);
        Status::new(Reason::MethodNotAllowed, why).into()
    }

    /// Changes it by operations of a JSON patch (RFC 6902).
    pub async fn change(
        self,
        sender: Sender,
        part: Part,
        operations: Vec<Value>,
    ) -> Result<Revision, Refusal> {
        let mut patch = vec![json!({ "op": "test", "path": "/metadata/uid", "value": self.uid })];
        patch.extend(operations);
        let change = Change {
            sender,
            resource: resource_key(&self.resource),
            namespace: self.namespace,
            name: self.name,
            part,
            form: Form::Json,
            body: Value::from(patch).to_string().into(),
            dry_run: false,
        };
        let door = self.node.local::<ObjectsRole>(OBJECTS_ACTOR);
        let change = FencedChange { change, fence: self.fence };
        let object = door.ask(change, LIMIT).await.map_err(|error| unanswered(&error))??;
        let object: Value = serde_json::from_slice(&object).map_err(Status::internal)?;
        let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let revision = version.and_then(|version| version.parse().ok());
        revision.ok_or_else(|| Status::internal("the object came back without a version").into())
    }
}

/// What is said where the door does not answer.
fn unanswered(error: &AskError) -> Status {
    match error.remedy() {
        Remedy::LookFirst => Status::timeout(error.to_string()),
        Remedy::Retry | Remedy::Resolve => Status::unavailable(error.to_string(), 1),
        Remedy::GiveUp => Status::internal(error),
    }
}
