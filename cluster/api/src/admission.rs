//! What happens to an object between a request and the registry.
//!
//! [`admit_create`], [`admit_update`] and [`admit_delete`] fill in defaults, let the kind's strategy
//! decide what is the server's to decide, and validate: an object comes out ready to be stored, or
//! a [`Status`] that names everything that is wrong. They are plain functions; whatever a server
//! draws comes from the [`Allocator`] in the [`Context`].

use crate::field::{
    as_map, at, copy, default, get, has, list, number, object_mut, remove, same, set, text,
};
use crate::resource::Resource;
use crate::rules::metadata;
use crate::status::Status;
use jiff::Timestamp;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::fmt::Debug;
use std::net::Ipv4Addr;

/// The letters of what a server appends to `generateName`: none that make words.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// The longest `generateName` that a suffix fits behind.
const GENERATE_NAME_MAX: usize = 58;
/// Ports that a service may take on every node.
pub const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Draws what a server draws. Tests hand in one that always draws the same.
pub trait Allocator: Send + Sync + Debug {
    /// A uid for a new object.
    fn uid(&self) -> String;
    /// Five characters to append to a name.
    fn name_suffix(&self) -> String;
    /// A cluster IP, the wanted one if any; the error says why it cannot be had.
    fn cluster_ip(&self, wanted: Option<&str>) -> Result<String, String>;
    /// A node port, the wanted one if any; the error says why it cannot be had.
    fn node_port(&self, wanted: Option<u16>) -> Result<u16, String>;
    /// Whether pods may act as this service account.
    fn service_account_exists(&self, namespace: &str, name: &str) -> bool {
        let _ = namespace;
        name == "default"
    }
}

/// Draws at random from a range, around what is taken already.
#[derive(Debug)]
pub struct RandomAllocator {
    network: Ipv4Addr,
    prefix: u8,
    taken_ips: HashSet<String>,
    taken_ports: HashSet<u16>,
    accounts: HashSet<(String, String)>,
}

impl RandomAllocator {
    /// Addresses of `network/prefix`, none taken yet.
    pub fn new(network: Ipv4Addr, prefix: u8) -> Self {
        Self {
            network,
            prefix: prefix.min(30),
            taken_ips: HashSet::new(),
            taken_ports: HashSet::new(),
            accounts: HashSet::new(),
        }
    }

    /// The same, knowing what these services have.
    pub fn with_services<'a>(mut self, services: impl IntoIterator<Item = &'a Value>) -> Self {
        for service in services {
            let ips = list(service, "spec.clusterIPs").iter().filter_map(Value::as_str);
            self.taken_ips.extend(ips.map(str::to_owned));
            let ports = list(service, "spec.ports").iter().filter_map(|p| number(p, "nodePort"));
            self.taken_ports.extend(ports.filter_map(|port| u16::try_from(port).ok()));
        }
        self
    }

    /// The same, knowing which service accounts there are besides `default`.
    pub fn with_account(mut self, namespace: &str, name: &str) -> Self {
        self.accounts.insert((namespace.to_owned(), name.to_owned()));
        self
    }

    fn contains(&self, ip: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        u32::from(ip) & mask == u32::from(self.network) & mask
    }
}

impl Allocator for RandomAllocator {
    fn uid(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }

    fn name_suffix(&self) -> String {
        let mut rng = rand::rng();
        (0..5).filter_map(|_| SUFFIX_LETTERS.choose(&mut rng).map(|c| char::from(*c))).collect()
    }

    fn cluster_ip(&self, wanted: Option<&str>) -> Result<String, String> {
        if let Some(wanted) = wanted {
            let inside = wanted.parse::<Ipv4Addr>().is_ok_and(|ip| self.contains(ip));
            return if !inside {
                let (network, prefix) = (self.network, self.prefix);
                Err(format!(
                    "failed to allocate IP {wanted}: the provided network does not match the current range {network}/{prefix}"
                ))
            } else if self.taken_ips.contains(wanted) {
                Err(format!("failed to allocate IP {wanted}: provided IP is already allocated"))
            } else {
                Ok(wanted.to_owned())
            };
        }
        let size = 1_u32 << (32 - u32::from(self.prefix));
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        let base = u32::from(self.network) & mask;
        // The first is the network's own, the last its broadcast; start anywhere and go round.
        let start = rand::random_range(1..size - 1);
        (0..size - 2)
            .map(|step| Ipv4Addr::from(base + 1 + (start - 1 + step) % (size - 2)).to_string())
            .find(|ip| !self.taken_ips.contains(ip))
            .ok_or_else(|| "failed to allocate a serviceIP: range is full".to_owned())
    }

    fn node_port(&self, wanted: Option<u16>) -> Result<u16, String> {
        match wanted {
            Some(port) if !NODE_PORTS.contains(&port) => Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                NODE_PORTS.start(),
                NODE_PORTS.end()
            )),
            Some(port) if self.taken_ports.contains(&port) => {
                Err("provided port is already allocated".to_owned())
            }
            Some(port) => Ok(port),
            None => {
                let size = NODE_PORTS.end() - NODE_PORTS.start() + 1;
                let start = rand::random_range(0..size);
                (0..size)
                    .map(|step| NODE_PORTS.start() + (start + step) % size)
                    .find(|port| !self.taken_ports.contains(port))
                    .ok_or_else(|| "range is full".to_owned())
            }
        }
    }

    fn service_account_exists(&self, namespace: &str, name: &str) -> bool {
        name == "default" || self.accounts.contains(&(namespace.to_owned(), name.to_owned()))
    }
}

/// What a request brings along besides the object.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The namespace in the path; empty for resources without.
    pub namespace: &'a str,
    /// Who asks.
    pub user: &'a str,
    /// The time of the request.
    pub now: Timestamp,
    /// Draws what the server draws.
    pub allocator: &'a dyn Allocator,
}

/// Which part of an object a request may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// All but the status.
    Main,
    /// The status alone.
    Status,
    /// The replica count alone; the object is the whole one with the new count.
    Scale,
    /// The finalizers of a namespace's spec.
    Finalize,
}

/// A time as metadata has it: whole seconds of UTC.
pub fn metadata_time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The name that an object will be stored under: its own, or a generated one.
fn settle_name(object: &mut Value, context: &Context<'_>) {
    let metadata = object_mut(object, "metadata");
    let prefix = text(metadata, "generateName").to_owned();
    if text(metadata, "name").is_empty() && !prefix.is_empty() {
        let mut end = prefix.len().min(GENERATE_NAME_MAX);
        while !prefix.is_char_boundary(end) {
            end -= 1;
        }
        let name = format!("{}{}", &prefix[..end], context.allocator.name_suffix());
        set(metadata, "name", name);
    }
}

/// The namespace of the object must be that of the path.
fn settle_namespace(object: &mut Value, namespace: &str) -> Result<(), Status> {
    let metadata = object_mut(object, "metadata");
    let given = text(metadata, "namespace");
    if namespace.is_empty() {
        remove(metadata, "namespace");
    } else if given.is_empty() {
        set(metadata, "namespace", namespace);
    } else if given != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

fn settle_type(resource: &Resource, object: &mut Value) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request(format!(
            "a {} is a JSON object, this is not one",
            resource.kind
        )));
    }
    set(object, "apiVersion", resource.api_version());
    set(object, "kind", resource.kind);
    Ok(())
}

/// A new object, ready to be stored.
pub fn admit_create(
    resource: &Resource,
    mut object: Value,
    context: &Context<'_>,
) -> Result<Value, Status> {
    settle_type(resource, &mut object)?;
    let namespace = if resource.namespaced { context.namespace } else { "" };
    settle_namespace(&mut object, namespace)?;
    if !text(&object, "metadata.resourceVersion").is_empty() {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    (resource.rules.default)(&mut object);
    let metadata = object_mut(&mut object, "metadata");
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
        "generation",
    ] {
        remove(metadata, field);
    }
    set(metadata, "uid", context.allocator.uid());
    set(metadata, "creationTimestamp", metadata_time(context.now));
    if resource.generation {
        set(metadata, "generation", 1);
    }
    settle_name(&mut object, context);
    (resource.rules.prepare_create)(&mut object, context)?;
    let mut causes = metadata::validate(resource, &object);
    causes.extend((resource.rules.validate)(&object));
    let name = text(&object, "metadata.name").to_owned();
    if !causes.is_empty() {
        return Err(Status::invalid(resource, &name, causes));
    }
    (resource.rules.allocate)(&mut object, None, context)
        .map_err(|causes| Status::invalid(resource, &name, causes))?;
    tidy(&mut object);
    Ok(object)
}

/// A changed object, ready to be stored in place of `old`.
///
/// The caller has compared resource versions; `new` may lack what only the server sets.
pub fn admit_update(
    resource: &Resource,
    door: Door,
    mut new: Value,
    old: &Value,
    context: &Context<'_>,
) -> Result<Value, Status> {
    settle_type(resource, &mut new)?;
    let name = text(old, "metadata.name").to_owned();
    let given = text(&new, "metadata.name");
    if given.is_empty() {
        set(object_mut(&mut new, "metadata"), "name", name.as_str());
    } else if given != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    settle_namespace(&mut new, text(old, "metadata.namespace"))?;
    match door {
        Door::Main | Door::Scale => {
            if resource.has_status_door() {
                copy(old, &mut new, "status");
            }
        }
        Door::Status => keep_all_but_status(&mut new, old),
        Door::Finalize => keep_all_but_finalizers(&mut new, old),
    }
    (resource.rules.default)(&mut new);
    metadata::carry_over(&mut new, old);
    if matches!(door, Door::Main | Door::Scale) {
        (resource.rules.prepare_update)(&mut new, old, context)?;
    }
    if resource.generation {
        let generation = number(old, "metadata.generation").unwrap_or(1);
        let changed = !same(get(&new, "spec"), get(old, "spec"));
        let metadata = object_mut(&mut new, "metadata");
        set(metadata, "generation", generation + i64::from(changed));
    } else {
        copy(at(old, "metadata"), object_mut(&mut new, "metadata"), "generation");
    }
    let mut causes = metadata::validate_update(&new, old);
    // Both the common path and the kind's own look at what may not change in metadata.
    causes.extend(metadata::validate_update(&new, old));
    causes.extend(match door {
        Door::Main | Door::Scale => (resource.rules.validate_update)(&new, old),
        Door::Status => (resource.rules.validate_status)(&new, old),
        Door::Finalize => (resource.rules.validate)(&new),
    });
    if !causes.is_empty() {
        return Err(Status::invalid(resource, &name, causes));
    }
    if matches!(door, Door::Main | Door::Scale) {
        (resource.rules.allocate)(&mut new, Some(old), context)
            .map_err(|causes| Status::invalid(resource, &name, causes))?;
    }
    tidy(&mut new);
    Ok(new)
}

/// The status door takes the status and nothing else, the managed fields aside.
fn keep_all_but_status(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    copy(new, &mut kept, "status");
    copy(get(new, "metadata"), object_mut(&mut kept, "metadata"), "managedFields");
    for field in ["uid", "resourceVersion"] {
        let given = at(new, "metadata").get(field).cloned();
        if let Some(given) = given.filter(|value| !value.is_null()) {
            set(object_mut(&mut kept, "metadata"), field, given);
        }
    }
    *new = kept;
}

fn keep_all_but_finalizers(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    let finalizers = at(new, "spec.finalizers").clone();
    set(object_mut(&mut kept, "spec"), "finalizers", finalizers);
    *new = kept;
}

/// What is empty where absent means the same is left out, as Kubernetes writes it.
fn tidy(object: &mut Value) {
    let metadata = object_mut(object, "metadata");
    for field in ["labels", "annotations", "finalizers", "ownerReferences", "managedFields"] {
        let empty = match get(metadata, field) {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if empty {
            remove(metadata, field);
        }
    }
    remove(metadata, "resourceVersion");
    remove(metadata, "selfLink");
}

/// What the writer of an object should know although nothing is wrong.
pub fn warnings(resource: &Resource, object: &Value) -> Vec<String> {
    (resource.rules.warnings)(object)
}

/// What becomes of the objects that an object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// They are deleted after it.
    #[default]
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay, without an owner.
    Orphan,
}

/// What a deletion asks for.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Seconds that a pod gets to end.
    pub grace_period_seconds: Option<i64>,
    /// What becomes of the objects it owns.
    pub propagation: Propagation,
    /// The uid that the object must have.
    pub uid: Option<String>,
    /// The resource version that the object must have.
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads a `DeleteOptions` object.
    pub fn from_value(options: &Value) -> Result<Self, Status> {
        let propagation = match text(options, "propagationPolicy") {
            "" if at(options, "orphanDependents") == &Value::Bool(true) => Propagation::Orphan,
            "" | "Background" => Propagation::Background,
            "Foreground" => Propagation::Foreground,
            "Orphan" => Propagation::Orphan,
            other => {
                return Err(Status::bad_request(format!(
                    "invalid propagationPolicy {other:?}: use one of \"Background\", \"Foreground\", \"Orphan\""
                )));
            }
        };
        let given = |path: &str| Some(text(options, path).to_owned()).filter(|t| !t.is_empty());
        Ok(Self {
            grace_period_seconds: number(options, "gracePeriodSeconds"),
            propagation,
            uid: given("preconditions.uid"),
            resource_version: given("preconditions.resourceVersion"),
        })
    }
}

/// What a deletion does now.
#[derive(Debug, Clone, PartialEq)]
pub enum Deletion {
    /// The object goes at once.
    Gone,
    /// The object stays, marked as this, until what holds it has let go.
    Marked(Value),
    /// The object is marked already and this deletion changes nothing.
    Unchanged,
}

/// What deleting an object means. `resource_version` is the one it has now.
pub fn admit_delete(
    resource: &Resource,
    object: &Value,
    resource_version: &str,
    options: &DeleteOptions,
    now: Timestamp,
) -> Result<Deletion, Status> {
    let name = text(object, "metadata.name");
    for (what, wanted, found) in [
        ("UID", &options.uid, text(object, "metadata.uid")),
        ("ResourceVersion", &options.resource_version, resource_version),
    ] {
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
            return Err(Status::conflict(
                resource,
                name,
                format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
                ),
            ));
        }
    }
    let mut marked = object.clone();
    let grace = grace_period(resource, object, options.grace_period_seconds);
    let metadata = object_mut(&mut marked, "metadata");
    let finalizer = match options.propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some("foregroundDeletion"),
        Propagation::Orphan => Some("orphan"),
    };
    let already = has(metadata, "deletionTimestamp");
    if let Some(finalizer) = finalizer.filter(|_| !already) {
        let finalizers = as_map(metadata).entry("finalizers").or_insert_with(|| json!([]));
        match finalizers {
            Value::Array(all) if all.iter().any(|f| f == finalizer) => {}
            Value::Array(all) => all.push(finalizer.into()),
            other => *other = json!([finalizer]),
        }
    }
    let shorter = number(metadata, "deletionGracePeriodSeconds").is_none_or(|old| grace < old);
    if !already || shorter {
        // A deletion said again may only hurry: its time never moves back.
        let due = metadata_time(now + jiff::SignedDuration::from_secs(grace.max(0)));
        set(metadata, "deletionTimestamp", due);
        set(metadata, "deletionGracePeriodSeconds", grace);
        if resource.generation {
            let generation = number(metadata, "generation").unwrap_or(0);
            set(metadata, "generation", generation + 1);
        }
    }
    if resource.plural == "namespaces" {
        set(object_mut(&mut marked, "status"), "phase", "Terminating");
    }
    if is_finished(resource, &marked) {
        Ok(Deletion::Gone)
    } else if same(&marked, object) {
        Ok(Deletion::Unchanged)
    } else {
        Ok(Deletion::Marked(marked))
    }
}

/// Seconds until a deleted object may go: pods that run get time to end, nothing else does.
fn grace_period(resource: &Resource, object: &Value, asked: Option<i64>) -> i64 {
    let ends_by_itself = resource.plural == "pods"
        && resource.group.is_empty()
        && !text(object, "spec.nodeName").is_empty()
        && !matches!(text(object, "status.phase"), "Succeeded" | "Failed");
    if !ends_by_itself {
        return 0;
    }
    let usual = || number(object, "spec.terminationGracePeriodSeconds").unwrap_or(30);
    match asked.unwrap_or_else(usual) {
        negative if negative < 0 => 1,
        grace => grace,
    }
}

/// Whether a marked object has nothing left that holds it and is to be removed.
pub fn is_finished(resource: &Resource, object: &Value) -> bool {
    has(object, "metadata.deletionTimestamp")
        && list(object, "metadata.finalizers").is_empty()
        && number(object, "metadata.deletionGracePeriodSeconds").unwrap_or(0) == 0
        && (resource.plural != "namespaces" || list(object, "spec.finalizers").is_empty())
}

/// The `Scale` of an object; none when its kind has no such door.
pub fn scale_of(resource: &Resource, object: &Value) -> Option<Value> {
    let paths = resource.scale?;
    let selector = object.pointer(paths.selector).unwrap_or(&Value::Null);
    let selector = if selector.get("matchLabels").is_some_and(Value::is_object)
        || selector.get("matchExpressions").is_some_and(Value::is_array)
    {
        crate::selector::LabelSelector::from_object(selector)
            .map_or(String::new(), |s| s.to_string())
    } else {
        crate::selector::LabelSelector::from_map(selector).to_string()
    };
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = at(object, "metadata").get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": { "replicas": count(paths.spec) },
        "status": { "replicas": count(paths.status) },
    });
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    Some(scale)
}

/// The whole object with the count of a `Scale`, to be admitted through [`Door::Scale`].
pub fn apply_scale(resource: &Resource, object: &Value, scale: &Value) -> Result<Value, Status> {
    let Some(paths) = resource.scale else {
        return Err(Status::no_such_path());
    };
    let wanted = number(scale, "spec.replicas").unwrap_or(0);
    if wanted < 0 {
        let mut causes = crate::field::Causes::default();
        let path = crate::field::Path::new("spec").child("replicas");
        causes.invalid(&path, wanted, "must be greater than or equal to 0");
        return Err(Status::invalid(resource, text(object, "metadata.name"), causes.into_vec()));
    }
    let mut scaled = object.clone();
    if let Some(slot) = scaled.pointer_mut(paths.spec) {
        *slot = wanted.into();
    } else {
        let (parent, field) = paths.spec.rsplit_once('/').unwrap_or(("", paths.spec));
        if let Some(parent) = scaled.pointer_mut(parent) {
            default(parent, field, wanted);
        }
    }
    Ok(scaled)
}
