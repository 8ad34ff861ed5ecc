//! What a control member runs besides a node: its share of the registry, the control actors of its
//! shards, the authority's door, and the REST API.

mod error;

pub use error::ControlError;

use super::gate::{ClusterGate, HARNESS};
use super::ranges::service_network;
use super::renewal::{ApiCertificate, Renewal};
use super::revoked::{self, Following, Known};
use super::usage;
use crate::layout::{ClusterDir, ControlFile, NodeDir, NodeFile};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_actors::authority::{Authority, AuthorityParts};
use impresario_actors::controllers::activation::{Keeper, Kind, Subjects};
use impresario_actors::controllers::control::LookError;
use impresario_actors::controllers::engine::sources::Source;
use impresario_actors::controllers::node_lifecycle::{Heard, Silence};
use impresario_actors::controllers::view::View;
use impresario_actors::controllers::{self};
use impresario_actors::node::{Heart, Pulse};
use impresario_actors::scheduler::{Members, Scheduler, SchedulerSettings};
use impresario_actors::training_job::{self, cluster_desk::ClusterDesk};
use impresario_client::protocol::authority::{AUTHORITY, AuthorityRole, Join, JoinRole};
use impresario_client::protocol::scheduler::{SchedulerRole, actor_name};
use impresario_gateway::authenticate::RegistryTokens;
use impresario_gateway::logs::RuntimeLogs;
use impresario_gateway::sessions::RuntimeSessions;
use impresario_gateway::{Gateway, Server, SharedListener, Sharer, Tls, TlsSettings};
use impresario_objects::accounts::Accounts;
use impresario_objects::definitions::Definitions;
use impresario_objects::protocol::{OBJECTS_ACTOR, ObjectsRole};
use impresario_objects::rbac::Roles;
use impresario_objects::{
    Bindings, Membership, Objects, ObjectsActor, ObjectsParts, Policies, Reader, ServiceRanges,
    Webhooks,
};
use impresario_registry::protocol::LeadHeartbeats;
use impresario_registry::{
    Beginning, Heartbeat, Member, MemberConfig, REGISTRY_ACTOR, ReadError, RegistryHandle,
    RegistryRole,
};
use impresario_runtime::{
    ActorNode, ActorPath, Backoff, ClusterAuthority, Credential, JoinAnswer, JoinDoor, JoinRequest,
    NodeName, PeerRole, Refusal, SpawnOptions, random, tasks,
};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long the authority has to answer a join.
const JOIN_LIMIT: Duration = Duration::from_secs(15);
/// How long the leader has to tell its heartbeats.
const HEARTBEATS_LIMIT: Duration = Duration::from_secs(2);
/// How long a member that starts waits until it has read which certificates are revoked.
const FIRST_READING_LIMIT: Duration = Duration::from_secs(5);
/// Requests that wait for the objects at a time; each is taken up at once and waits elsewhere.
const OBJECTS_MAILBOX: usize = 4_096;
/// Pauses until the registry takes the first objects.
const FOUNDATION: Backoff =
    Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) };

/// The parts of a running control member.
pub struct Control {
    member: Arc<Member>,
    failed: BoxFuture<'static, String>,
    server: Server,
    _keeper: Keeper,
    foundation: JoinHandle<()>,
    departures: JoinHandle<()>,
    _renewal: Renewal,
    _revocations: Following,
    _definitions: Definitions,
}

/// What there is of a node before its member starts.
#[derive(Clone, Copy)]
pub struct Begun<'a> {
    /// Its folder.
    pub dir: &'a NodeDir,
    /// Who it is.
    pub file: &'a NodeFile,
    /// Its end of the network.
    pub node: &'a ActorNode,
    /// Its credential.
    pub credential: &'a Credential,
    /// Where machines ask to join.
    pub door: &'a Door,
    /// Its gate.
    pub gate: &'a ClusterGate,
}

impl Control {
    /// Starts everything. Objects can be written once the registry has a leader. Who is revoked is read before any door
    /// opens at which a certificate is worth something, or not in time, which is said.
    pub async fn start(
        settings: &ControlFile,
        begun: Begun<'_>,
        known: Known,
    ) -> Result<Self, ControlError> {
        let Begun { dir, file, node, credential, door, gate } = begun;
        let others = file.peers.iter().filter(|peer| peer.control);
        let others = others.map(|peer| NodeName::from(peer.name.as_str())).collect();
        let beginning = if settings.founder {
            Beginning::Found { peers: others }
        } else {
            Beginning::Join { members: others }
        };
        let mut config = MemberConfig::new(dir.registry(), node.clone(), file.advertise, beginning);
        config.harness = file.chaos.then(|| HARNESS.to_owned());
        let member = Member::start(config).await;
        let member = Arc::new(member.map_err(|error| ControlError::of_registry(error, dir))?);
        let is_member: Membership = Arc::new(member.membership());
        // One start, one member: it is set once.
        let _ = gate.membership.set(is_member.clone());
        if settings.founder {
            // Once and never again: a founder whose disk is emptied must not found another group.
            let control = Some(ControlFile { founder: false, ..settings.clone() });
            dir.save(&NodeFile { control, ..file.clone() })?;
        }
        let registry = member.handle();
        let ranges =
            ServiceRanges { network: service_network(&file.cluster), ..ServiceRanges::default() };
        let reader = Reader::new(registry.clone());
        let (policies, webhooks) = (Policies::follow(&reader), Webhooks::follow(&reader));
        let objects = Objects::new(registry.clone())
            .with_ranges(ranges)
            .with_policies(policies)
            .with_webhooks(webhooks);

        let authority = Arc::new(ClusterAuthority::load(&settings.pki)?);
        let api = ApiCertificate {
            authority: authority.clone(),
            name: file.name.clone(),
            subjects: api_names(file, &objects),
            lifetime: settings.certificate_lifetime,
        };
        let first = api.issue()?;
        let tls = Tls::new(TlsSettings::of(&first)?)?;
        let renewal = Renewal::of_api(api, tls.clone(), &first);
        let mut revocations = {
            let tls = tls.clone();
            let told = move |found| tls.revoke(found);
            revoked::follow(known, registry.clone(), node.clone(), gate, told)
        };
        if gate.is_unread.load(Ordering::Relaxed)
            && !revocations.has_read_within(FIRST_READING_LIMIT).await
        {
            tracing::warn!(
                "no leader tells yet which certificates are revoked: until one does, those count that were when this \
                 member last heard"
            );
        }

        // Before any door opens at which somebody may ask for one of these kinds; a member without a leader waits no more.
        let definitions = Definitions::follow(Reader::new(registry.clone()));
        if !gate.is_unread.load(Ordering::Relaxed)
            && !definitions.has_read_within(FIRST_READING_LIMIT).await
        {
            tracing::warn!(
                "the definitions of kinds are not read yet: what they define is served once they are"
            );
        }

        // What is asked before they are read is answered by that.
        let roles = Roles::follow(&Reader::new(registry.clone()));
        let parts = ObjectsParts {
            objects: objects.clone(),
            bindings: Arc::new(Bindings::follow(registry.clone())),
            roles: roles.clone(),
            refusals: gate.refusals.clone(),
            is_member,
            workers: tokio::runtime::Handle::current(),
        };
        let options = SpawnOptions { mailbox: OBJECTS_MAILBOX, ..SpawnOptions::default() };
        node.spawn::<ObjectsRole, _>(OBJECTS_ACTOR, options, move |_| {
            ObjectsActor::new(parts.clone())
        })?;

        let signing = authority.clone();
        let accounts =
            Accounts::new(registry.clone(), &authority.secret("keys of service accounts"))?;
        let parts = AuthorityParts {
            authority,
            node: node.clone(),
            registry: registry.clone(),
            machine_lifetime: settings.certificate_lifetime,
            tokens_kept: Arc::default(),
            accounts: accounts.clone(),
        };
        node.spawn::<AuthorityRole, _>(AUTHORITY, SpawnOptions::default(), move |_| {
            Authority::new(parts.clone())
        })?;
        door.open(node.clone());

        let usage = usage::listen(node)?;

        let view = View::start(objects.clone(), "controller-manager");
        let silence = Arc::new(LeaderSilence { member: member.clone(), node: node.clone() });
        let mut kinds =
            controllers::kinds(&view, silence, members_of(&member), credential.authority_pem());
        kinds.push(controllers::definitions::kind(&objects, &definitions, members_of(&member)));
        kinds.push(controllers::roles::kind(&objects, &roles, &definitions));
        kinds.push(controllers::quotas::kind(&objects));
        kinds.extend(controllers::certificate_signer::kind(&view, &signing));
        kinds.push(controllers::horizontal_pod_autoscaler::kind(&view, &usage));
        kinds.push(scheduler(&registry, members_of(&member)));
        kinds.push(training_jobs(&view, members_of(&member), file.advertise));
        let keeper = Keeper::start(node.clone(), member.shards(), kinds);

        let logs = Arc::new(RuntimeLogs::new(node.clone()));
        let gateway = Gateway::new(objects.clone(), roles, logs)
            .with_sessions(RuntimeSessions::new(node.clone()))
            .with_accounts(accounts)
            .with_tokens(RegistryTokens::new(registry))
            .with_refusals(gate.refusals.clone())
            .with_usage(Arc::new(usage::ForApi(usage)));
        let departures = tasks::spawn(revoked::end_links_of_removed(&member, node.clone()));
        let others = || other_members(dir);
        let listener = SharedListener::of(settings.api, dir.path(), others).await?;
        let server = Server::serve(listener, tls, Arc::new(gateway))?;
        let foundation = tasks::spawn(lay_foundation(
            objects,
            credential.authority_pem().to_owned(),
            settings.api.port(),
        ));
        let failed = member.failed().boxed();
        Ok(Self {
            member,
            failed,
            server,
            _keeper: keeper,
            foundation,
            departures,
            _renewal: renewal,
            _revocations: revocations,
            _definitions: definitions,
        })
    }

    /// The registry, through this member.
    pub fn registry(&self) -> RegistryHandle {
        self.member.handle()
    }

    /// Where this node's heartbeats go.
    pub fn heart(&self) -> Arc<dyn Heart> {
        Arc::new(MemberHeart(self.member.clone()))
    }

    /// Resolves when the registry of this member has failed.
    pub async fn failed(&mut self) -> String {
        (&mut self.failed).await
    }

    /// Stops everything; the disk is left as it is.
    pub async fn stop(self, limit: Duration) {
        let Self {
            member,
            server,
            _keeper: keeper,
            foundation,
            departures,
            failed,
            _renewal: _,
            _revocations: _,
            _definitions: _,
        } = self;
        foundation.abort();
        departures.abort();
        drop(keeper);
        drop(failed);
        server.stop(limit).await;
        member.stop().await;
    }
}

struct MemberHeart(Arc<Member>);

impl Heart for MemberHeart {
    fn beat(&self, beat: Heartbeat) -> Pulse<'_> {
        Box::pin(async move { self.0.heartbeat(beat).await.is_ok() })
    }
}

/// The other control members that run on this machine.
fn other_members(own: &NodeDir) -> Vec<Sharer> {
    let cluster = own.path().parent().and_then(Path::parent).map(Path::to_owned);
    let Some(cluster) = cluster.map(ClusterDir::new).filter(ClusterDir::is_ours) else {
        return Vec::new();
    };
    let is_member = |node: &NodeDir| node.load().is_ok_and(|file| file.control.is_some());
    let nodes = cluster.nodes().unwrap_or_default().into_iter();
    let others = nodes.filter(|node| node.path() != own.path() && node.is_running());
    let sharer = |node: NodeDir| Sharer { folder: node.path().to_owned(), pid: node.pid() };
    others.filter(is_member).map(sharer).collect()
}

/// Where others reach the API of this member: at the node's address where it listens on all.
pub fn api_address(file: &NodeFile, settings: &ControlFile) -> SocketAddr {
    let listens_on_all = settings.api.ip().is_unspecified();
    let ip = if listens_on_all { file.advertise.ip() } else { settings.api.ip() };
    SocketAddr::new(ip, settings.api.port())
}

/// The names and addresses under which clients reach the API.
fn api_names(file: &NodeFile, objects: &Objects) -> Vec<String> {
    let mut names: Vec<String> = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(String::from)
    .into();
    names.push(file.name.clone());
    names.push(objects.ranges().api_address().to_string());
    let own = file.advertise.ip().to_string();
    if !names.contains(&own) {
        names.push(own);
    }
    names
}

/// The control members, as this one knows them.
fn members_of(member: &Arc<Member>) -> Members {
    let member = Arc::downgrade(member);
    Arc::new(move || {
        let status = member.upgrade().map(|member| member.status());
        let names =
            status.into_iter().flat_map(|known| known.voters.into_iter().chain(known.learners));
        names.map(|name| NodeName::from(name.as_str())).collect()
    })
}

fn scheduler(registry: &RegistryHandle, members: Members) -> Kind {
    let registry = registry.clone();
    let settings = SchedulerSettings::default();
    Kind::One {
        name: DEFAULT_SCHEDULER_ACTOR,
        sources: Vec::new(),
        start: Arc::new(move |node, activation| {
            let (settings, registry, actor_node, members) =
                (settings.clone(), registry.clone(), node.clone(), members.clone());
            let fence = Some(activation.fence);
            let name = actor_name(&settings.name);
            node.spawn::<SchedulerRole, _>(name, SpawnOptions::default(), move |_| {
                let (settings, registry) = (settings.clone(), registry.clone());
                Scheduler::new(settings, actor_node.clone(), registry, fence, members.clone())
            })?;
            Ok(())
        }),
    }
}

/// `own` is where this member is reached.
pub(super) fn training_jobs(view: &View, members: Members, own: std::net::SocketAddr) -> Kind {
    let view = view.clone();
    let jobs = view.mirrors.partial("training.impresario.dev/trainingjobs");
    Kind::Each {
        objects: Subjects::of(&jobs),
        prefix: "trainingjob".into(),
        sources: vec![Source::controllers_of(&view.pods)],
        start: Arc::new(move |node, activation| {
            let objects = view.objects.fenced(activation.fence);
            let events = view.events.clone();
            let (members, me) = (members.clone(), node.clone());
            let reached = move || {
                let address = |name: &NodeName| {
                    if name == me.name() { Some(own) } else { me.addresses().get(name) }
                };
                let members = (members)().into_iter();
                members.filter_map(|name| address(&name).map(|at| (name, at))).collect()
            };
            let pods = view.pods.clone();
            let desk = ClusterDesk::new(objects, events, pods, activation, Arc::new(reached));
            let lease = activation.fence.epoch.0;
            training_job::start(node, Arc::new(desk), &activation.uid, lease).map(|_| ())
        }),
    }
}

/// The actor of the default scheduler.
const DEFAULT_SCHEDULER_ACTOR: &str = "scheduler/default-scheduler";

async fn lay_foundation(objects: Objects, authority_pem: String, port: u16) {
    let mut attempt = 0;
    while let Err(status) = objects.lay_foundation(&authority_pem, port).await {
        tracing::debug!(%status, "the first objects cannot be written yet");
        tokio::time::sleep(FOUNDATION.wait(attempt, random::random())).await;
        attempt += 1;
    }
}

/// Asks the leader when it last heard each node.
struct LeaderSilence {
    member: Arc<Member>,
    node: ActorNode,
}

impl Silence for LeaderSilence {
    fn heard(&self) -> BoxFuture<'_, Result<Heard, LookError>> {
        async {
            let unavailable = |reason: String| ReadError::Unavailable { reason };
            let leader = self.member.status().leader;
            let leader = leader.ok_or_else(|| unavailable("no leader is known".into()))?;
            let path = ActorPath::new(NodeName::from(leader.as_str()), REGISTRY_ACTOR);
            let answer =
                self.node.actor::<RegistryRole>(path).ask(LeadHeartbeats, HEARTBEATS_LIMIT).await;
            let beats = answer
                .map_err(|error| unavailable(error.to_string()))?
                .map_err(|error| unavailable(error.to_string()))?;
            Ok(Heard {
                leading_for: beats.leading_for,
                ages: beats.nodes.into_iter().map(|node| (node.beat.node, node.age)).collect(),
            })
        }
        .boxed()
    }
}

/// The door for machines that join; it opens when the authority's actor is there.
#[derive(Default)]
pub struct Door(OnceLock<ActorNode>);

impl Door {
    fn open(&self, node: ActorNode) {
        // A second opening would be of the same node.
        let _ = self.0.set(node);
    }
}

impl JoinDoor for Door {
    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Result<JoinAnswer, Refusal>> {
        async move {
            let node = self.0.get().ok_or_else(|| {
                Refusal::new("this member is still starting: try again in a moment")
            })?;
            let join = Join {
                secret: request.secret,
                csr_pem: request.csr_pem,
                name: request.name,
                from: request.from.to_string(),
            };
            let authority = node.local::<AuthorityRole>(AUTHORITY);
            let joined = authority
                .ask(join, JOIN_LIMIT)
                .await
                .map_err(|error| Refusal::new(format!("{error}; try again with the same token")))?
                .map_err(|error| Refusal::new(error.to_string()))?;
            let role = match joined.role {
                JoinRole::Node => PeerRole::Node,
                JoinRole::Control => PeerRole::Control,
                JoinRole::Client => PeerRole::Client,
            };
            let peers = joined.peers.iter().filter_map(|peer| {
                let address = peer.address.parse().ok()?;
                Some((NodeName::from(peer.name.as_str()), address, peer.control))
            });
            Ok(JoinAnswer {
                certificate_pem: joined.certificate_pem,
                authority_pem: joined.authority_pem,
                name: NodeName::from(joined.name.as_str()),
                role,
                cluster: joined.cluster,
                number: joined.number,
                peers: peers.collect(),
            })
        }
        .boxed()
    }
}
