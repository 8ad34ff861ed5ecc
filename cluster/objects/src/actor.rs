//! The actor behind [`ObjectsRole`](impresario_client::objects::protocol::ObjectsRole), one on each control member.
//!
//! Every handler starts a future and returns. What is asked is judged by [`may`](crate::may) first, and
//! again by the object that a write would replace; a refusal is typed, counted and logged once, and leaves
//! everything as it was.

use crate::Objects;
use crate::bound::Bindings;
use crate::may::{Ask, Denied, Rule, Verb, Who, may};
use crate::refusals::Refusals;
use actix::{Actor, Context, Handler, Message, ResponseFuture};
use bytes::Bytes;
use futures_util::StreamExt;
use impresario_api::admission::{DeleteOptions, Door, Propagation};
use impresario_api::resource::{Resource, resource_key, resources};
use impresario_api::status::Status;
use impresario_client::objects::protocol::{
    Bind, Change, CountRefusals, Create, Delete, Follow, Form, Get, Gone, List, Part, Refusal,
    Refused, Sender, Settle,
};
use impresario_client::objects::stored::text;
use impresario_client::objects::{Binding, Deleted, Patch, WriteOptions};
use impresario_registry_api::{
    Committed, Consistency, Entry, Page, ReadError, Revision, Selection, TransactError,
    Transaction, Watch, WatchError,
};
use impresario_runtime::Open;
use k8s_openapi::api::core::v1;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// How long a node that names a pod's secret may be ahead of what this member has seen of its pods.
const CATCH_UP: Duration = Duration::from_millis(500);
/// Watches that one member serves to other processes.
const WATCHES: usize = 8192;
/// Where nodes say that a value is found that says where a pod is.
const NODE_NAME: &str = "/spec/nodeName";

/// What an [`ObjectsActor`] is made of; outlives its restarts.
#[derive(Clone)]
pub struct ObjectsParts {
    /// What reads and writes.
    pub objects: Objects,
    /// What is bound where.
    pub bindings: Arc<Bindings>,
    /// Where refusals are counted.
    pub refusals: Arc<Refusals>,
}

/// The actor.
pub struct ObjectsActor {
    parts: ObjectsParts,
    watches: Arc<Semaphore>,
}

impl ObjectsActor {
    /// One life of the actor.
    pub fn new(parts: ObjectsParts) -> Self {
        Self { parts, watches: Arc::new(Semaphore::new(WATCHES)) }
    }
}

impl Actor for ObjectsActor {
    type Context = Context<Self>;
}

/// Who that is to the rules.
fn who(sender: &Sender) -> Who<'_> {
    Who::holder(&sender.name, &sender.role)
}

impl ObjectsParts {
    /// Whether it may be done, as far as this member has seen what is bound where.
    fn judge(&self, sender: &Sender, ask: &Ask<'_>) -> Result<(), Denied> {
        may(who(sender), ask, &*self.bindings)
    }

    /// Whether it may be done, where it does not depend on a state that a write replaces.
    async fn permit(&self, sender: &Sender, ask: &Ask<'_>) -> Result<(), Denied> {
        let mut denied = match self.judge(sender, ask) {
            Ok(()) => return Ok(()),
            Err(denied) => denied,
        };
        if denied.rule == Rule::NamedByOwnPods && !ask.name.is_empty() {
            // The node may know of a pod that another member bound a moment ago.
            let mut news = self.bindings.news();
            let until = Instant::now() + CATCH_UP;
            let key = impresario_registry_api::Key::new("nodes", "", &sender.name);
            let read = self.objects.registry().get(key, Consistency::Linearizable);
            // Whatever it says, the member has caught up as far as it can.
            let _ = timeout_at(until, read).await;
            loop {
                match self.judge(sender, ask) {
                    Ok(()) => return Ok(()),
                    Err(again) => denied = again,
                }
                if !matches!(timeout_at(until, news.changed()).await, Ok(Ok(()))) {
                    break;
                }
            }
        }
        Err(self.refused(sender, denied))
    }

    /// Counts and logs a refusal.
    fn refused(&self, sender: &Sender, denied: Denied) -> Denied {
        self.refusals.count(who(sender).role(), &format!("{:?}", denied.rule));
        tracing::warn!(peer = %sender.name, role = who(sender).role(), rule = ?denied.rule, %denied, "refused");
        denied
    }

    /// The engine for this sender: what a write replaces is judged where it is replaced.
    fn engine(&self, sender: &Sender, resource: &'static Resource) -> Objects {
        if matches!(who(sender), Who::Member | Who::Admin) {
            return self.objects.clone();
        }
        let (parts, sender, key) = (self.clone(), sender.clone(), resource_key(resource));
        self.objects.judged(Arc::new(move |verb, old, new| {
            let named = old.or(new).unwrap_or(&Value::Null);
            let (namespace, name) =
                (text(named, "/metadata/namespace"), text(named, "/metadata/name"));
            let ask = Ask::of(verb, &key, namespace, name).change(old, new);
            parts
                .judge(&sender, &ask)
                .map_err(|denied| Status::forbidden(resource, name, parts.refused(&sender, denied)))
        }))
    }

    async fn get(self, asked: Get) -> Result<(Option<Entry>, Revision), ReadError> {
        let Get { sender, key, consistency } = asked;
        let refused = |denied: Denied| ReadError::Refused { reason: denied.to_string() };
        known(&key.resource).map_err(|reason| ReadError::Refused { reason })?;
        let ask = Ask::of(Verb::Get, &key.resource, &key.namespace, &key.name);
        self.permit(&sender, &ask).await.map_err(refused)?;
        let (entry, revision) = self.objects.registry().get(key.clone(), consistency).await?;
        if let (Who::Node(_), Some(entry)) = (who(&sender), &entry)
            && matches!(key.resource.as_str(), "pods" | "events")
        {
            let old: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
            let ask = ask.change(Some(&old), None);
            self.judge(&sender, &ask).map_err(|denied| refused(self.refused(&sender, denied)))?;
        }
        Ok((entry, revision))
    }

    async fn permit_all(
        &self,
        sender: &Sender,
        verb: Verb,
        select: &Selection,
    ) -> Result<(), String> {
        known(&select.resource)?;
        let namespace = select.namespace.as_deref().unwrap_or_default();
        let name = select.name.as_deref().unwrap_or_default();
        let on_node = select.field.as_ref().filter(|(pointer, _)| pointer == NODE_NAME);
        let on_node = on_node.map(|(_, node)| node.as_str());
        let ask = Ask { on_node, ..Ask::of(verb, &select.resource, namespace, name) };
        self.permit(sender, &ask).await.map_err(|denied| denied.to_string())
    }

    async fn list(self, asked: List) -> Result<Page, ReadError> {
        let permitted = self.permit_all(&asked.sender, Verb::List, &asked.request.select).await;
        permitted.map_err(|reason| ReadError::Refused { reason })?;
        self.objects.registry().list(asked.request).await
    }

    async fn follow(self, asked: Follow) -> Result<Watch, WatchError> {
        let permitted = self.permit_all(&asked.sender, Verb::Watch, &asked.request.select).await;
        permitted.map_err(|reason| WatchError::Refused { reason })?;
        self.objects.registry().watch(asked.request).await
    }

    async fn settle(self, asked: Settle) -> Result<Committed, TransactError> {
        let Settle { sender, key, at, value } = asked;
        let refused = |reason: String| TransactError::Refused { reason };
        known(&key.resource).map_err(refused)?;
        let found = self.entry_at(&key, at).await?;
        let old: Value =
            serde_json::from_slice(&found.value).map_err(|error| refused(error.to_string()))?;
        let new = value.as_deref().map(|value| settled(&key.resource, &old, value)).transpose();
        let new = new.map_err(refused)?;
        let verb = if new.is_some() { Verb::Update } else { Verb::Delete };
        let ask = Ask::of(verb, &key.resource, &key.namespace, &key.name);
        let ask = ask.change(Some(&old), new.as_ref());
        self.judge(&sender, &ask)
            .map_err(|denied| refused(self.refused(&sender, denied).to_string()))?;
        let transaction = match value {
            Some(value) => Transaction::update(key, at, value),
            None => Transaction::remove(key, at),
        };
        self.objects.registry().transact(transaction).await
    }

    /// The state that a write means to replace. What this member has is enough where it is that very
    /// state: the compare of the write makes sure that it is the newest.
    async fn entry_at(
        &self,
        key: &impresario_registry_api::Key,
        at: Revision,
    ) -> Result<Entry, TransactError> {
        let mut found = None;
        for consistency in [Consistency::Local, Consistency::Linearizable] {
            let read = self.objects.registry().get(key.clone(), consistency).await;
            let (entry, _) = read.map_err(|error| match error {
                ReadError::Refused { reason } => TransactError::Refused { reason },
                other => TransactError::Unavailable { reason: other.to_string() },
            })?;
            match entry {
                Some(entry) if entry.mod_revision == at => return Ok(entry),
                other => found = other,
            }
        }
        let found = found.map_or(0, |entry| entry.mod_revision);
        Err(TransactError::Conflict { key: key.clone(), expected: at, found })
    }

    async fn create(self, asked: Create) -> Result<Bytes, Refusal> {
        let resource = served(&asked.resource)?;
        let ask = Ask::of(Verb::Create, &asked.resource, &asked.namespace, "");
        self.permit_unseen(&asked.sender, &ask, resource).await?;
        let object = json(&asked.object)?;
        let options = options(&asked.sender, asked.dry_run);
        let engine = self.engine(&asked.sender, resource);
        let created = engine.create(resource, &asked.namespace, object, &options).await?;
        Ok(bytes(&created)?)
    }

    async fn change(self, asked: Change) -> Result<Bytes, Refusal> {
        let resource = served(&asked.resource)?;
        let ask = Ask::of(Verb::Update, &asked.resource, &asked.namespace, &asked.name);
        self.permit_unseen(&asked.sender, &ask, resource).await?;
        let body = json(&asked.body)?;
        let door = match asked.part {
            Part::Main => Door::Main,
            Part::Status => Door::Status,
            Part::Scale => Door::Scale,
            Part::Finalize => Door::Finalize,
        };
        let (namespace, name) = (asked.namespace.as_str(), asked.name.as_str());
        let options = options(&asked.sender, asked.dry_run);
        let engine = self.engine(&asked.sender, resource);
        let patch = match asked.form {
            Form::Whole => {
                let updated =
                    engine.update(resource, door, namespace, name, body, &options).await?;
                return Ok(bytes(&updated)?);
            }
            Form::Json => Patch::Json(body),
            Form::Merge => Patch::Merge(body),
            Form::Strategic => Patch::Strategic(body),
        };
        let patched = engine.patch(resource, door, namespace, name, &patch, &options).await?;
        Ok(bytes(&patched)?)
    }

    async fn delete(self, asked: Delete) -> Result<Gone, Refusal> {
        let resource = served(&asked.resource)?;
        let ask = Ask::of(Verb::Delete, &asked.resource, &asked.namespace, &asked.name);
        self.permit_unseen(&asked.sender, &ask, resource).await?;
        let propagation = match asked.propagation.as_str() {
            "Foreground" => Propagation::Foreground,
            "Orphan" => Propagation::Orphan,
            "" | "Background" => Propagation::Background,
            other => {
                let why =
                    format!("{other:?} is no propagation: use Background, Foreground or Orphan");
                return Err(Status::bad_request(why).into());
            }
        };
        let deletion = DeleteOptions {
            grace_period_seconds: asked.grace_period_seconds,
            propagation,
            uid: asked.uid,
            resource_version: asked.resource_version,
        };
        let options = options(&asked.sender, asked.dry_run);
        let engine = self.engine(&asked.sender, resource);
        let deleted =
            engine.delete(resource, &asked.namespace, &asked.name, &deletion, &options).await?;
        let (object, lingers) = match &deleted {
            Deleted::Gone(object) => (object, false),
            Deleted::Lingers(object) => (object, true),
        };
        Ok(Gone { object: bytes(object)?, lingers })
    }

    async fn bind(self, asked: Bind) -> Result<Bytes, Refusal> {
        let pods = served("pods")?;
        let ask = Ask::of(Verb::Bind, "pods", &asked.namespace, &asked.pod);
        self.permit(&asked.sender, &ask)
            .await
            .map_err(|denied| forbidden(pods, &asked.pod, &denied))?;
        let binding =
            Binding { node: asked.node, uid: asked.uid, resource_version: asked.resource_version };
        let options = options(&asked.sender, asked.dry_run);
        let bound = self.objects.bind(&asked.namespace, &asked.pod, &binding, &options).await?;
        Ok(bytes(&bound)?)
    }

    /// Refuses at once what no state of the object could allow; nodes are judged by the state.
    async fn permit_unseen(
        &self,
        sender: &Sender,
        ask: &Ask<'_>,
        resource: &'static Resource,
    ) -> Result<(), Refusal> {
        let depends = matches!(who(sender), Who::Node(_))
            && matches!(ask.resource, "pods" | "events" | "nodes" | "coordination.k8s.io/leases");
        if depends {
            return Ok(());
        }
        let permitted = self.permit(sender, ask).await;
        permitted.map_err(|denied| forbidden(resource, ask.name, &denied))
    }

    fn count_refusals(&self) -> Vec<Refused> {
        self.refusals.read()
    }
}

/// The new state of what a node owns. It must be readable as what it is: everybody else's mirrors read it.
fn settled(resource: &str, old: &Value, value: &[u8]) -> Result<Value, String> {
    let read = match resource {
        "pods" => serde_json::from_slice::<v1::Pod>(value).map(drop),
        "nodes" => serde_json::from_slice::<v1::Node>(value).map(drop),
        "events" => serde_json::from_slice::<v1::Event>(value).map(drop),
        other => return Err(format!("{other} are not written so: create, change or delete them")),
    };
    let unreadable = |error: serde_json::Error| format!("this is no object of {resource}: {error}");
    read.map_err(unreadable)?;
    let new: Value = serde_json::from_slice(value).map_err(unreadable)?;
    if resource == "pods" {
        let causes = impresario_api::rules::pod::validate_status(&new, old);
        if let Some(cause) = causes.first() {
            return Err(format!("the status is not valid: {cause}"));
        }
    }
    Ok(new)
}

fn known(resource: &str) -> Result<&'static Resource, String> {
    let found = resources().iter().find(|row| resource_key(row) == resource);
    found.ok_or_else(|| {
        format!("{resource:?} is no resource of the API: `kubectl api-resources` lists them")
    })
}

fn served(resource: &str) -> Result<&'static Resource, Status> {
    known(resource).map_err(Status::bad_request)
}

fn forbidden(resource: &Resource, name: &str, denied: &Denied) -> Refusal {
    Status::forbidden(resource, name, denied).into()
}

fn options(sender: &Sender, dry_run: bool) -> WriteOptions {
    WriteOptions { dry_run, manager: sender.name.clone(), user: sender.name.clone() }
}

fn json(body: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(body)
        .map_err(|error| Status::bad_request(format!("the body is no JSON: {error}")))
}

fn bytes(object: &Value) -> Result<Bytes, Status> {
    serde_json::to_vec(object).map(Bytes::from).map_err(Status::internal)
}

type Reply<M> = ResponseFuture<<M as Message>::Result>;

/// Every request is served by a future of its own: one that waits for the registry holds up nobody.
macro_rules! served {
    ($message:ty, $serve:ident) => {
        impl Handler<$message> for ObjectsActor {
            type Result = Reply<$message>;

            fn handle(&mut self, message: $message, _: &mut Self::Context) -> Self::Result {
                Box::pin(self.parts.clone().$serve(message))
            }
        }
    };
}

served!(Get, get);
served!(List, list);
served!(Settle, settle);
served!(Create, create);
served!(Change, change);
served!(Delete, delete);
served!(Bind, bind);

impl Handler<CountRefusals> for ObjectsActor {
    type Result = actix::MessageResult<CountRefusals>;

    fn handle(&mut self, _: CountRefusals, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(self.parts.count_refusals())
    }
}

impl Handler<Open<Follow>> for ObjectsActor {
    type Result = Result<(), impresario_runtime::Refusal>;

    fn handle(&mut self, open: Open<Follow>, _: &mut Self::Context) -> Self::Result {
        let Open { message, sink } = open;
        let Ok(place) = self.watches.clone().try_acquire_owned() else {
            return Err(impresario_runtime::Refusal::new(
                "this member serves as many watches as it may: ask another one",
            ));
        };
        let parts = self.parts.clone();
        // Ends when the reader goes, and with the member's stop at the latest.
        actix::spawn(async move {
            let _place = place;
            let mut watch = match parts.follow(message).await {
                Ok(watch) => watch,
                Err(error) => {
                    // The reader may be gone already.
                    let _ = sink.send(Err(error)).await;
                    return;
                }
            };
            loop {
                let item = tokio::select! {
                    item = watch.next() => item,
                    () = sink.closed() => return,
                };
                let Some(item) = item else { return };
                if sink.send(item).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}
