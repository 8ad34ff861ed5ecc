//! The SDK's front door: connect with a credential, use typed objects, speak with any actor.
//!
//! A [`Client`] is an actor node of its own that joins as a guest: it serves nobody, asks whom its
//! certificate's role may ask, and reads and writes objects through the control members, which apply the
//! same defaults and rules as to requests over REST. Losing a member is not seen, as long as one answers.

use crate::keeper::{Home, Keeper};
use crate::objects::{
    DeleteOptions, Deleted, Door, Filter, ListQuery, ObjectEvent, Patch, RemoteDoor, RemoteObjects,
    WatchQuery, WriteOptions,
};
use futures_util::stream::{BoxStream, StreamExt};
use impresario_api::catalog::find_kind;
use impresario_api::resource::Row;
use impresario_api::selector::{FieldSelector, LabelSelector, SelectorError};
use impresario_api::status::Status;
use impresario_registry_api::Revision;
use impresario_runtime::pki::{PkiError, TokenError};
use impresario_runtime::{
    ActorName, ActorNode, ActorPath, ActorRef, Credential, Gate, JoinError, NodeConfig, NodeName,
    PeerIdentity, PeerRole, Refusal, Role, StartError,
};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::any::Any;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;

/// Why a client could not connect.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No control member was named.
    #[error(
        "no control member was given: pass the name and QUIC address of at least one (see `imp status`)"
    )]
    NoMembers,
    /// The client's own actor node does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The address is none.
    #[error("{0} is not an address such as 10.0.0.1:7000: copy it from `imp token create`")]
    Address(String),
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The cluster refused, or did not answer.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The token makes something else of its holder.
    #[error("the token makes no client ({role:?}): make one with `imp token create --role client`")]
    Role {
        /// What it makes.
        role: PeerRole,
    },
    /// The credential cannot be kept or read.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The certificate in the folder has ended.
    #[error("the certificate in {} ended at {at}: join with a new token (`imp token create --role client`)", folder.display())]
    Expired {
        /// The client's folder.
        folder: PathBuf,
        /// When it ended.
        at: Timestamp,
    },
    /// A file of the client is unusable.
    #[error("{}: {cause}; remove the folder {} and join again with a new token", path.display(), folder.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The client's folder.
        folder: PathBuf,
        /// What is wrong.
        cause: std::io::Error,
    },
}

/// Why a typed operation failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The cluster refused it, in the words of the API.
    #[error(transparent)]
    Refused(#[from] Status),
    /// The Rust type is of a kind that the cluster does not serve.
    #[error(
        "the cluster serves no {kind} in {api_version}: use a type of a kind in `kubectl api-resources`"
    )]
    NotServed {
        /// The kind.
        kind: &'static str,
        /// Its apiVersion.
        api_version: &'static str,
    },
    /// A value does not fit the Rust type.
    #[error(
        "{kind} cannot be converted: {source}: the client and the cluster are of different versions"
    )]
    Convert {
        /// The kind.
        kind: &'static str,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// A selector cannot be read.
    #[error(transparent)]
    Selector(#[from] SelectorError),
}

/// A client asks and is asked nothing.
struct ServesNobody;

impl Gate for ServesNobody {
    fn permit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
        _: &dyn Any,
    ) -> Result<(), Refusal> {
        self.admit(peer, to, message)
    }

    fn admit(&self, _: &PeerIdentity, _: &ActorName, _: &'static str) -> Result<(), Refusal> {
        Err(Refusal::new("this is a client, which serves nobody"))
    }
}

/// A program's connection to a cluster.
#[derive(Clone)]
pub struct Client {
    node: ActorNode,
    objects: RemoteObjects,
    /// Knows the control members.
    keeper: Arc<Keeper>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("objects", &self.objects).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects with a credential of the cluster to these control members: their names and QUIC addresses.
    ///
    /// Must be called inside an actix system. Nothing is sent yet: the first use finds a member that
    /// answers. From then on it looks each minute who the members are and where, for as long as the client is there.
    pub async fn connect(
        credential: Credential,
        members: &[(NodeName, SocketAddr)],
    ) -> Result<Self, ConnectError> {
        Self::at_home(credential, members, Home::default()).await
    }

    /// The same, with what is kept of it where it has a folder.
    pub(crate) async fn at_home(
        credential: Credential,
        members: &[(NodeName, SocketAddr)],
        home: Home,
    ) -> Result<Self, ConnectError> {
        if members.is_empty() {
            return Err(ConnectError::NoMembers);
        }
        let local = members.iter().all(|(_, address)| address.ip().is_loopback());
        let v6 = members.iter().any(|(_, address)| address.is_ipv6());
        let from: IpAddr = match (local, v6) {
            (true, false) => Ipv4Addr::LOCALHOST.into(),
            (true, true) => Ipv6Addr::LOCALHOST.into(),
            (false, false) => Ipv4Addr::UNSPECIFIED.into(),
            (false, true) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let mut config = NodeConfig::new(credential);
        config.bind = SocketAddr::new(from, 0);
        config.gate = Arc::new(ServesNobody);
        let role = config.credential.identity().role.clone();
        let node = ActorNode::start(config).await?;
        for (name, address) in members {
            node.addresses().set(name.clone(), *address);
        }
        let names = members.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let (known, names) = watch::channel(names);
        let objects = RemoteObjects::new(RemoteDoor::new(node.clone(), names));
        let keeper = Keeper::start(&role, objects.clone(), node.clone(), known, home);
        Ok(Self { node, objects, keeper: Arc::new(keeper) })
    }

    /// Untyped objects.
    pub fn objects(&self) -> &RemoteObjects {
        &self.objects
    }

    /// The client's own actor node.
    pub fn node(&self) -> &ActorNode {
        &self.node
    }

    /// An actor, wherever it runs. Its node's address must be known: nodes found through
    /// [`Client::learn_nodes`] are.
    pub fn actor<R: Role>(&self, path: ActorPath) -> ActorRef<R> {
        self.node.actor(path)
    }

    /// Typed objects of one namespace; of all of them where it is empty, and for cluster-scoped kinds.
    pub fn api<K>(&self, namespace: &str) -> Result<Api<K>, ClientError>
    where
        K: k8s_openapi::Resource + Serialize + DeserializeOwned,
    {
        let resource = find_kind(K::GROUP, K::VERSION, K::KIND)
            .ok_or(ClientError::NotServed { kind: K::KIND, api_version: K::API_VERSION })?;
        Ok(Api {
            objects: self.objects.clone(),
            resource,
            namespace: namespace.into(),
            kind: PhantomData,
        })
    }

    /// The control members, as far as they are known.
    pub(crate) fn members(&self) -> Vec<NodeName> {
        self.keeper.members()
    }

    /// Reads the addresses of all nodes, so that their actors can be asked, and which of them are
    /// control members. Gives their names.
    ///
    /// A node that advertises a loopback address is one of the machine through which the client
    /// joined: from another machine it is reached at that machine's address.
    pub async fn learn_nodes(&self) -> Result<Vec<NodeName>, ClientError> {
        let nodes = find_kind("", "v1", "Node")
            .ok_or(ClientError::NotServed { kind: "Node", api_version: "v1" })?;
        let listed = self.objects.list(&nodes, &ListQuery::default()).await?;
        let mut names = Vec::new();
        for node in &listed.items {
            let name = node.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let name = NodeName::from(name);
            if self.keeper.learn_address(&name, node) {
                names.push(name);
            }
        }
        self.keeper.learn_members().await;
        Ok(names)
    }

    /// Closes the connections.
    pub async fn close(self, deadline: Duration) {
        self.node.stop(deadline).await;
    }
}

/// What happened to a typed object.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<K> {
    /// It is there, or matches, since now.
    Added(K),
    /// It changed.
    Modified(K),
    /// It went, or ceased to match.
    Deleted(K),
    /// Nothing happened up to this revision that was not told.
    Progress(Revision),
}

/// Which objects a list or a watch means, in the words of `kubectl -l` and `--field-selector`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Select<'a> {
    /// Labels; empty for all.
    pub labels: &'a str,
    /// Fields; empty for all.
    pub fields: &'a str,
}

/// Typed objects of one kind.
#[derive(Debug, Clone)]
pub struct Api<K> {
    objects: RemoteObjects,
    resource: Row,
    namespace: String,
    kind: PhantomData<fn() -> K>,
}

impl<K> Api<K>
where
    K: k8s_openapi::Resource + Serialize + DeserializeOwned + Send + 'static,
{
    fn typed(object: Value) -> Result<K, ClientError> {
        serde_json::from_value(object)
            .map_err(|source| ClientError::Convert { kind: K::KIND, source })
    }

    fn untyped(object: &K) -> Result<Value, ClientError> {
        let mut value = serde_json::to_value(object)
            .map_err(|source| ClientError::Convert { kind: K::KIND, source })?;
        value["kind"] = K::KIND.into();
        value["apiVersion"] = K::API_VERSION.into();
        Ok(value)
    }

    fn filter(&self, select: Select<'_>) -> Result<Filter, ClientError> {
        let fields = FieldSelector::parse(select.fields)?;
        fields.check(&self.resource)?;
        Ok(Filter {
            labels: Some(LabelSelector::parse(select.labels)?),
            fields: Some(fields),
            name: None,
        })
    }

    fn scope(&self) -> Option<String> {
        (!self.namespace.is_empty()).then(|| self.namespace.clone())
    }

    /// One object.
    pub async fn get(&self, name: &str) -> Result<K, ClientError> {
        Self::typed(self.objects.get(&self.resource, &self.namespace, name).await?)
    }

    /// All objects that are meant, and the revision to watch from.
    pub async fn list(&self, select: Select<'_>) -> Result<(Vec<K>, Revision), ClientError> {
        let query = ListQuery {
            namespace: self.scope(),
            filter: self.filter(select)?,
            ..ListQuery::default()
        };
        let listed = self.objects.list(&self.resource, &query).await?;
        let items = listed.items.into_iter().map(Self::typed).collect::<Result<_, _>>()?;
        Ok((items, listed.revision))
    }

    /// What happens after a revision; without one the objects that are there come first, as added. Whoever goes on
    /// later does so after the last [`Event::Progress`]: an object's own revision may be that of others, too, which
    /// were still to be told.
    pub async fn watch(
        &self,
        select: Select<'_>,
        after: Option<Revision>,
    ) -> Result<BoxStream<'static, Result<Event<K>, ClientError>>, ClientError> {
        let query = WatchQuery {
            namespace: self.scope(),
            filter: self.filter(select)?,
            version: after,
            initial_events: None,
        };
        let watch = self.objects.watch(&self.resource, query).await?;
        let events = watch.map(|event| {
            Ok(match event? {
                ObjectEvent::Added(object) => Event::Added(Self::typed(object)?),
                ObjectEvent::Modified(object) => Event::Modified(Self::typed(object)?),
                ObjectEvent::Deleted(object) => Event::Deleted(Self::typed(object)?),
                ObjectEvent::Bookmark { revision, .. } => Event::Progress(revision),
            })
        });
        Ok(events.boxed())
    }

    /// Creates an object; gives it as it was stored.
    pub async fn create(&self, object: &K) -> Result<K, ClientError> {
        let mut value = Self::untyped(object)?;
        if self.resource.namespaced {
            value["metadata"]["namespace"] = self.namespace.as_str().into();
        }
        let options = WriteOptions::default();
        Self::typed(self.objects.create(&self.resource, &self.namespace, value, &options).await?)
    }

    /// Replaces an object; with a resourceVersion in it, only that very state.
    pub async fn replace(&self, name: &str, object: &K) -> Result<K, ClientError> {
        self.replace_at(Door::Main, name, object).await
    }

    /// Replaces the status of an object.
    pub async fn replace_status(&self, name: &str, object: &K) -> Result<K, ClientError> {
        self.replace_at(Door::Status, name, object).await
    }

    async fn replace_at(&self, door: Door, name: &str, object: &K) -> Result<K, ClientError> {
        let value = Self::untyped(object)?;
        let options = WriteOptions::default();
        let replaced = self
            .objects
            .update(&self.resource, door, &self.namespace, name, value, &options)
            .await?;
        Self::typed(replaced)
    }

    /// Changes fields of an object (RFC 7396: null removes a field).
    pub async fn patch_merge(&self, name: &str, change: Value) -> Result<K, ClientError> {
        let (patch, options) = (Patch::Merge(change), WriteOptions::default());
        let patched = self
            .objects
            .patch(&self.resource, Door::Main, &self.namespace, name, &patch, &options)
            .await?;
        Self::typed(patched)
    }

    /// Deletes an object. `Some` is the object that lingers until its finalizers or its node let it go.
    pub async fn delete(
        &self,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Option<K>, ClientError> {
        match self
            .objects
            .delete(&self.resource, &self.namespace, name, options, &WriteOptions::default())
            .await?
        {
            Deleted::Gone(_) => Ok(None),
            Deleted::Lingers(object) => Self::typed(object).map(Some),
        }
    }
}
