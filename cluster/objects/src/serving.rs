//! What is asked of objects, judged and done.
//!
//! What is asked is judged by [`may`](crate::may) first, and again by the object that a write would replace; a refusal
//! is typed, counted, logged now and then, and leaves everything as it was.

mod writer;

use crate::Objects;
use crate::bound::{Bindings, LAST_WORDS};
use crate::incoming::{PAGE_BYTES, bounded, known, read, settled, target, within};
use crate::managers::note;
use crate::may::{Ask, Bound, Denied, Rule, Verb, Who, may};
use crate::rbac::Roles;
use crate::refusals::Refusals;
use bytes::Bytes;
use impresario_api::admission::{DeleteOptions, Door, Propagation};
use impresario_api::patch::{self, PatchType};
use impresario_api::resource::{Resource, Row, resource_key};
use impresario_api::status::{CauseReason, Reason, Status};
use impresario_api::storage::NODE_POINTER;
use impresario_api::wire::FieldValidation;
use impresario_client::objects::protocol::{
    Bind, Change, Create, Delete, FencedChange, Follow, Form, Get, Gone, List, Part, Refusal,
    Refused, Sender, Settle,
};
use impresario_client::objects::stored::{bytes_of, text};
use impresario_client::objects::{Binding, Deleted};
use impresario_registry_api::{
    Committed, Consistency, Entry, Page, ReadError, Revision, Selection, TransactError,
    Transaction, Watch, WatchError,
};
use impresario_runtime::clock;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};
use until::{until_denied, until_removed};

mod until;

/// How long this member has to learn what the others have written.
const CAUGHT_UP: Duration = Duration::from_secs(5);
/// How long it then takes at most until it is known here what the pods that were written name.
const SEEN: Duration = Duration::from_millis(500);
/// Where nodes say that a value is found that says where a pod is.
const NODE_NAME: &str = "/spec/nodeName";

/// What who may know better is asked for.
const BEHIND: &str =
    "this member does not know yet what is bound where, or what the roles allow: ask another one";
/// The same where waiting makes nothing better.
const FORGOTTEN: &str =
    "this member came after that pod went, and cannot tell where it was: ask another one";

/// Why something is not permitted.
enum Unpermitted {
    /// A rule is against it.
    Denied(Denied),
    /// This member cannot tell.
    Behind,
    /// This member can never tell, but another one may.
    Forgotten,
}

/// What an [`ObjectsActor`](crate::ObjectsActor) is made of; outlives its restarts.
#[derive(Clone)]
pub struct ObjectsParts {
    /// What reads and writes.
    pub objects: Objects,
    /// What is bound where.
    pub bindings: Arc<Bindings>,
    /// What programs may do.
    pub roles: Roles,
    /// Where refusals are counted.
    pub refusals: Arc<Refusals>,
    /// Whether a node is a control member, by the membership of the registry.
    pub is_member: Membership,
    /// Where requests are worked on: on the actor's own thread, which it shares with others, a cluster of many nodes
    /// would wait in line.
    pub workers: Handle,
}

/// Tells of a node's name whether it is a control member.
pub type Membership = Arc<dyn Fn(&str) -> bool + Send + Sync>;

impl ObjectsParts {
    /// Who that is to the rules.
    pub(crate) fn who<'s>(&self, sender: &'s Sender) -> Who<'s> {
        Who::holder(&sender.name, &sender.role, &*self.is_member)
    }

    /// Whether it may be done, as far as this member has seen what is bound where.
    fn judge(&self, sender: &Sender, ask: &Ask<'_>) -> Result<(), Denied> {
        let who = self.who(sender);
        let Who::Client(name) = who else { return may(who, ask, &*self.bindings) };
        self.roles.permit(name, ask).map_err(|rule| ask.denied(who, rule))
    }

    /// Waits until it is known what programs may do, or so long that they are told to come back; whether it is.
    async fn knows(&self, sender: &Sender) -> bool {
        !matches!(self.who(sender), Who::Client(_)) || self.roles.has_read_within(CAUGHT_UP).await
    }

    /// Whether it may be done, where it does not depend on a state that a write replaces.
    async fn permit(&self, sender: &Sender, ask: &Ask<'_>) -> Result<(), Unpermitted> {
        if !self.knows(sender).await {
            return Err(Unpermitted::Behind);
        }
        let mut denied = match self.judge(sender, ask) {
            Ok(()) => return Ok(()),
            Err(denied) => denied,
        };
        let depends = match denied.rule {
            Rule::NamedByOwnPods => !ask.name.is_empty(),
            Rule::OwnEvents => ask.new.is_some(),
            _ => false,
        };
        if !depends {
            return Err(Unpermitted::Denied(denied));
        }
        // The node may know of a pod that another member bound a moment ago.
        let mut news = self.bindings.news();
        let key = impresario_registry_api::Key::new("nodes", "", &sender.name);
        let read = self.objects.registry().get(key, Consistency::Linearizable);
        let has_caught_up = matches!(timeout(CAUGHT_UP, read).await, Ok(Ok(_)));
        let has_forgotten =
            has_caught_up && self.bindings.is_current() && self.may_have_forgotten(ask).await;
        let until = Instant::now() + SEEN;
        loop {
            match self.judge(sender, ask) {
                Ok(()) => return Ok(()),
                Err(again) => denied = again,
            }
            if has_forgotten {
                return Err(Unpermitted::Forgotten);
            }
            if !has_caught_up || !matches!(timeout_at(until, news.changed()).await, Ok(Ok(()))) {
                break;
            }
        }
        // Who is behind refuses nobody for good: another member may know better, or remember a pod that went.
        let knows = has_caught_up && self.bindings.is_current();
        Err(if knows { Unpermitted::Denied(denied) } else { Unpermitted::Behind })
    }

    /// Whether an event is of a pod that is not there and may have gone before this process came.
    async fn may_have_forgotten(&self, ask: &Ask<'_>) -> bool {
        let Some(pod) = ask.new.map(|event| &event["involvedObject"]) else { return false };
        let (namespace, name) = (text(pod, "/namespace"), text(pod, "/name"));
        if pod["kind"] != "Pod"
            || self.bindings.remembers()
            || self.bindings.node_of(namespace, name).is_some()
        {
            return false;
        }
        let key = impresario_registry_api::Key::new("pods", namespace, name);
        let found = self.objects.registry().get(key, Consistency::Local).await;
        !matches!(found, Ok((Some(_), _)))
    }

    /// Counts a refusal, and logs it now and then.
    fn refused(&self, sender: &Sender, denied: Denied) -> Denied {
        let role = self.who(sender).role();
        self.refusals.count(role, &format!("{:?}", denied.rule));
        if let Some(unsaid) = self.refusals.is_to_be_logged(&sender.name, clock::now()) {
            tracing::warn!(peer = %sender.name, role, rule = ?denied.rule, unsaid, %denied, "refused");
        }
        denied
    }

    /// The engine for this sender: what a write replaces is judged where it is replaced.
    fn engine(&self, sender: &Sender, resource: &Row) -> Objects {
        if matches!(self.who(sender), Who::Member | Who::Admin) {
            return self.objects.clone();
        }
        if matches!(self.who(sender), Who::Client(_)) {
            return self.objects.guarded(self.roles.clone());
        }
        let (parts, sender, key) = (self.clone(), sender.clone(), resource_key(resource));
        let resource = Row::clone(resource);
        self.objects.judged(Arc::new(move |_, verb, old, new| {
            let named = old.or(new).unwrap_or(&Value::Null);
            let (namespace, name) =
                (text(named, "/metadata/namespace"), text(named, "/metadata/name"));
            let ask = Ask::of(verb, &key, namespace, name).change(old, new);
            parts.judge(&sender, &ask).map_err(|denied| {
                Status::forbidden(&resource, name, parts.refused(&sender, denied))
            })
        }))
    }

    pub(crate) async fn get(self, asked: Get) -> Result<(Option<Entry>, Revision), ReadError> {
        let Get { sender, key, consistency } = asked;
        let refused = |denied: Denied| ReadError::Refused { reason: denied.to_string() };
        let names = bounded(&[&key.resource, &key.namespace, &key.name]);
        names.map_err(|reason| ReadError::Refused { reason })?;
        known(&key.resource).map_err(|reason| ReadError::Refused { reason })?;
        let ask = Ask::of(Verb::Get, &key.resource, &key.namespace, &key.name);
        match self.permit(&sender, &ask).await {
            Ok(()) => {}
            Err(Unpermitted::Denied(denied)) => {
                return Err(refused(self.refused(&sender, denied)));
            }
            Err(Unpermitted::Behind | Unpermitted::Forgotten) => {
                return Err(ReadError::Unavailable { reason: BEHIND.to_owned() });
            }
        }
        let (entry, revision) = self.objects.registry().get(key.clone(), consistency).await?;
        if let (Who::Node(_), Some(entry)) = (self.who(&sender), &entry)
            && matches!(key.resource.as_str(), "pods" | "events" | "persistentvolumes")
        {
            let old: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
            let ask = ask.change(Some(&old), None);
            self.judge(&sender, &ask).map_err(|denied| refused(self.refused(&sender, denied)))?;
        }
        Ok((entry, revision))
    }

    fn permit_all(&self, sender: &Sender, verb: Verb, select: &Selection) -> Result<(), String> {
        bounded(&[
            &select.resource,
            select.namespace.as_deref().unwrap_or_default(),
            select.name.as_deref().unwrap_or_default(),
        ])?;
        if let Some((pointer, value)) = &select.field {
            bounded(&[pointer, value])?;
        }
        known(&select.resource)?;
        let permitted = self.judge_all(sender, verb, select);
        permitted.map_err(|denied| self.refused(sender, denied).to_string())
    }

    /// Whether a collection may be read. What is bound where says nothing about these: nobody waits here.
    fn judge_all(&self, sender: &Sender, verb: Verb, select: &Selection) -> Result<(), Denied> {
        let namespace = select.namespace.as_deref().unwrap_or_default();
        let name = select.name.as_deref().unwrap_or_default();
        let by_node = if select.resource == "persistentvolumes" { NODE_POINTER } else { NODE_NAME };
        let on_node = select.field.as_ref().filter(|(pointer, _)| pointer == by_node);
        let on_node = on_node.map(|(_, node)| node.as_str());
        self.judge(sender, &Ask { on_node, ..Ask::of(verb, &select.resource, namespace, name) })
    }

    pub(crate) async fn list(self, asked: List) -> Result<Page, ReadError> {
        if !self.knows(&asked.sender).await {
            return Err(ReadError::Unavailable { reason: BEHIND.to_owned() });
        }
        let permitted = self.permit_all(&asked.sender, Verb::List, &asked.request.select);
        permitted.map_err(|reason| ReadError::Refused { reason })?;
        let page = self.objects.registry().list(asked.request).await?;
        Ok(within(page, PAGE_BYTES))
    }

    pub(crate) async fn follow(self, asked: Follow) -> Result<Watch, WatchError> {
        let Follow { sender, request } = asked;
        if !self.knows(&sender).await {
            return Err(WatchError::Closed);
        }
        let permitted = self.permit_all(&sender, Verb::Watch, &request.select);
        permitted.map_err(|reason| WatchError::Refused { reason })?;
        let resource = known(&request.select.resource);
        let resource = resource.map_err(|reason| WatchError::Refused { reason })?;
        let select = request.select.clone();
        let watch = self.objects.registry().watch(request).await?;
        let watch = if resource.is_lasting() { watch } else { until_removed(watch, resource) };
        if !matches!(self.who(&sender), Who::Client(_)) {
            return Ok(watch);
        }
        let changes = self.roles.changes();
        let may = move || self.judge_all(&sender, Verb::Watch, &select).is_ok();
        Ok(until_denied(watch, changes, may))
    }

    pub(crate) async fn settle(self, asked: Settle) -> Result<Committed, TransactError> {
        let Settle { sender, key, at, value } = asked;
        let refused = |reason: String| TransactError::Refused { reason };
        bounded(&[&key.resource, &key.namespace, &key.name]).map_err(refused)?;
        let resource = &known(&key.resource).map_err(refused)?;
        let denied = |denied| refused(self.refused(&sender, denied).to_string());
        if !matches!(self.who(&sender), Who::Node(_)) {
            let ask = Ask::of(Verb::Update, &key.resource, &key.namespace, &key.name);
            return Err(denied(ask.denied(self.who(&sender), Rule::Settles)));
        }
        let found = self.entry_at(&key, at).await?;
        let old: Value =
            serde_json::from_slice(&found.value).map_err(|error| refused(error.to_string()))?;
        // Before anything is made of it: the words of a later refusal would tell what it holds.
        let ask = Ask::of(Verb::Get, &key.resource, &key.namespace, &key.name);
        self.judge(&sender, &ask.change(Some(&old), None)).map_err(denied)?;
        let new = value.as_deref().map(|value| settled(resource, &old, value)).transpose();
        let mut new = new.map_err(refused)?;
        if let Some(new) = &mut new {
            note(resource, &old, new, self.who(&sender).role()).map_err(refused)?;
        }
        let verb = if new.is_some() { Verb::Update } else { Verb::Delete };
        let ask = Ask::of(verb, &key.resource, &key.namespace, &key.name);
        let ask = ask.change(Some(&old), new.as_ref());
        self.judge(&sender, &ask).map_err(denied)?;
        let transaction = match &new {
            // What was checked is stored, not what was sent.
            Some(new) => {
                let value = bytes_of(new).map_err(|status| refused(status.message))?;
                Transaction::update(key, at, value)
            }
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

    pub(crate) async fn create(self, asked: Create) -> Result<Bytes, Refusal> {
        bounded(&[&asked.resource, &asked.namespace]).map_err(Status::bad_request)?;
        let resource = &served(&asked.resource)?;
        let ask = Ask::of(Verb::Create, &asked.resource, &asked.namespace, "");
        self.permit_unseen(&asked.sender, &ask, resource).await?;
        let decoded = read(resource, &asked.object)?;
        if resource.kind == "Event" {
            // The event may be of a pod that this member has not seen bound yet.
            let permitted =
                self.permit(&asked.sender, &ask.change(None, Some(&decoded.object))).await;
            permitted.map_err(|why| self.forbidden(&asked.sender, resource, "", why))?;
        }
        let options = self.options(&asked.sender, asked.dry_run);
        let engine = self.engine(&asked.sender, resource);
        let created = engine.create_decoded(resource, &asked.namespace, decoded, &options).await?;
        Ok(bytes(&created)?)
    }

    pub(crate) async fn change(self, asked: Change) -> Result<Bytes, Refusal> {
        bounded(&[&asked.resource, &asked.namespace, &asked.name]).map_err(Status::bad_request)?;
        let resource = &served(&asked.resource)?;
        let (door, subresource) = match asked.part {
            Part::Main => (Door::Main, ""),
            Part::Status => (Door::Status, "status"),
            Part::Scale => (Door::Scale, "scale"),
            Part::Finalize => (Door::Finalize, "finalize"),
        };
        let verb = if asked.form == Form::Whole { Verb::Update } else { Verb::Patch };
        let ask = Ask::of(verb, &asked.resource, &asked.namespace, &asked.name);
        let ask = Ask { subresource, ..ask };
        self.permit_unseen(&asked.sender, &ask, resource).await?;
        let (namespace, name) = (asked.namespace.as_str(), asked.name.as_str());
        let options = self.options(&asked.sender, asked.dry_run);
        let engine = self.engine(&asked.sender, resource);
        let form = match asked.form {
            Form::Whole => {
                let object = read(resource, &asked.body)?;
                let updated =
                    engine.update(resource, door, namespace, name, object, &options).await?;
                return Ok(bytes(&updated)?);
            }
            Form::Json => PatchType::Json,
            Form::Merge => PatchType::Merge,
            Form::Strategic => PatchType::Strategic,
        };
        let target = target(resource);
        let patched = engine
            .modify_decoded(resource, door, namespace, name, &options, |old| {
                patch::apply(target, old, form, &asked.body, FieldValidation::Strict)
                    .map_err(|error| Status::patch(resource, name, &error))
            })
            .await?;
        Ok(bytes(&patched)?)
    }

    /// The same by right of an activation. That it has ended is nothing that is wrong with what was asked for.
    pub(crate) async fn fenced_change(self, asked: FencedChange) -> Result<Bytes, Refusal> {
        let FencedChange { change, fence } = asked;
        let parts = Self { objects: self.objects.fenced(fence), ..self };
        let changed = parts.change(change).await;
        let is_fenced =
            |(_, word, _): &(String, String, String)| word == CauseReason::ShardLost.as_str();
        changed.map_err(|refusal| {
            if refusal.causes.iter().any(is_fenced) {
                let why = format!("{}: ask another member", refusal.message);
                Status::unavailable(why, 1).into()
            } else {
                refusal
            }
        })
    }

    pub(crate) async fn delete(self, asked: Delete) -> Result<Gone, Refusal> {
        bounded(&[&asked.resource, &asked.namespace, &asked.name]).map_err(Status::bad_request)?;
        let resource = &served(&asked.resource)?;
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
        let options = self.options(&asked.sender, asked.dry_run);
        let engine = self.engine(&asked.sender, resource);
        let deleted =
            engine.delete(resource, &asked.namespace, &asked.name, &deletion, &options).await?;
        let (object, lingers) = match &deleted {
            Deleted::Gone(object) => (object, false),
            Deleted::Lingers(object) => (object, true),
        };
        Ok(Gone { object: bytes(object)?, lingers })
    }

    pub(crate) async fn bind(self, asked: Bind) -> Result<Bytes, Refusal> {
        bounded(&[&asked.namespace, &asked.pod, &asked.node]).map_err(Status::bad_request)?;
        let pods = &served("pods")?;
        let ask = Ask::of(Verb::Bind, "pods", &asked.namespace, &asked.pod);
        let permitted = self.permit(&asked.sender, &ask).await;
        permitted.map_err(|why| self.forbidden(&asked.sender, pods, &asked.pod, why))?;
        let binding =
            Binding { node: asked.node, uid: asked.uid, resource_version: asked.resource_version };
        let options = self.options(&asked.sender, asked.dry_run);
        let bound = self.objects.bind(&asked.namespace, &asked.pod, &binding, &options).await?;
        Ok(bytes(&bound)?)
    }

    /// Refuses at once what no state of the object could allow; nodes are judged by the state.
    async fn permit_unseen(
        &self,
        sender: &Sender,
        ask: &Ask<'_>,
        resource: &Row,
    ) -> Result<(), Refusal> {
        let depends = matches!(self.who(sender), Who::Node(_))
            && matches!(ask.resource, "pods" | "events" | "nodes" | "coordination.k8s.io/leases");
        if depends {
            return Ok(());
        }
        let permitted = self.permit(sender, ask).await;
        Ok(permitted.map_err(|why| self.forbidden(sender, resource, ask.name, why))?)
    }

    /// What is answered to a write that is not permitted.
    fn forbidden(
        &self,
        sender: &Sender,
        resource: &Resource,
        name: &str,
        why: Unpermitted,
    ) -> Status {
        match why {
            Unpermitted::Denied(denied) => {
                Status::forbidden(resource, name, self.refused(sender, denied))
            }
            Unpermitted::Behind => Status::unavailable(BEHIND, 1),
            // By then it knows of all that went so lately, and says no.
            Unpermitted::Forgotten => Status::unavailable(FORGOTTEN, LAST_WORDS.as_secs() as u32),
        }
    }

    pub(crate) fn count_refusals(&self) -> Vec<Refused> {
        self.refusals.read()
    }
}

fn served(resource: &str) -> Result<Row, Status> {
    known(resource).map_err(|why| Status::new(Reason::NotFound, why))
}

fn bytes(object: &Value) -> Result<Bytes, Status> {
    serde_json::to_vec(object).map(Bytes::from).map_err(Status::internal)
}

#[cfg(test)]
mod tests;
