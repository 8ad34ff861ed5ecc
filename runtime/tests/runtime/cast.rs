//! The actors and nodes that the tests use, and how they wait.

use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture, WrapFuture};
use impresario_runtime::{
    ActorNode, ActorPath, ActorRef, Backoff, ClusterAuthority, Intensity, Lane,
    MESSAGE_LIMIT_BYTES, NodeConfig, Open, PeerRole, PeerUsage, PermitAll, Refusal, RestartPolicy,
    SpawnOptions, Timing, message, role, stream_message,
};
use serde::{Deserialize, Serialize};
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Runs a test as the program runs: an actix system on a multi-threaded runtime.
pub fn on_threads<T>(test: impl Future<Output = T>) -> T {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(4).enable_all().build().unwrap()
    };
    actix::System::with_tokio_rt(runtime).block_on(test)
}

/// For a busy machine: a passing test never spends it.
pub const LIMIT: Duration = Duration::from_secs(60);
pub const DAY: Duration = Duration::from_hours(24);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Echo(pub String);
message!(Echo => String, "test.Echo", Lane::Work, 2 << 20);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Note(pub u64);
message!(Note => (), "test.Note");

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Notes;
message!(Notes => Vec<u64>, "test.Notes");

/// Answers after so many milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ponder(pub u64);
message!(Ponder => u64, "test.Ponder");

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Panic;
message!(Panic => (), "test.Panic");

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Quit;
message!(Quit => (), "test.Quit");

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Large(#[serde(with = "as_bytes")] pub Vec<u8>);
message!(Large => Vec<u8>, "test.Large", Lane::Bulk, MESSAGE_LIMIT_BYTES);

/// Asks on the work lane for an answer of so many bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Give(pub usize);
message!(Give => Vec<u8>, "test.Give");

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Urgent;
message!(Urgent => (), "test.Urgent", Lane::Control);

/// As many as there are, of which the empty ones take 1 byte each between nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Texts(pub Vec<String>);
message!(Texts => usize, "test.Texts");

/// Keeps the actor from its mailbox until its `sent` says [`GO`]; it says [`HALTED`] once it does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Halt;
message!(Halt => (), "test.Halt");

pub const GO: u64 = u64::MAX - 1;
pub const HALTED: u64 = u64::MAX - 2;

/// Not handled by [`Player`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Foreign;
message!(Foreign => (), "test.Foreign");

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Count {
    pub to: u64,
    pub bytes_each: usize,
}
stream_message!(Count => (u64, Bytes), "test.Count");

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Break;
stream_message!(Break => u64, "test.Break");

mod as_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Ok(super::Bytes::deserialize(deserializer)?.to_vec())
    }
}
use bytes::Bytes;

role! {
    /// What the test's actor answers.
    pub PlayerRole = "player" {
        asks: [Echo, Note, Notes, Ponder, Halt, Panic, Quit, Large, Give, Urgent, Texts],
        streams: [Count, Break],
    }
}

role! {
    /// What it does not.
    pub ForeignRole = "foreign" { asks: [Foreign] }
}

/// Does what it is told, and shows how far its streams are.
pub struct Player {
    notes: Vec<u64>,
    pub sent: watch::Sender<u64>,
}

impl Default for Player {
    fn default() -> Self {
        Self { notes: Vec::new(), sent: watch::Sender::new(0) }
    }
}

impl Actor for Player {
    type Context = Context<Self>;
}

impl Handler<Echo> for Player {
    type Result = String;
    fn handle(&mut self, message: Echo, _: &mut Self::Context) -> String {
        message.0
    }
}

impl Handler<Note> for Player {
    type Result = ();
    fn handle(&mut self, message: Note, _: &mut Self::Context) {
        self.notes.push(message.0);
    }
}

impl Handler<Notes> for Player {
    type Result = Vec<u64>;
    fn handle(&mut self, _: Notes, _: &mut Self::Context) -> Vec<u64> {
        self.notes.clone()
    }
}

impl Handler<Ponder> for Player {
    type Result = ResponseFuture<u64>;
    fn handle(&mut self, message: Ponder, _: &mut Self::Context) -> Self::Result {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(message.0)).await;
            message.0
        })
    }
}

impl Handler<Halt> for Player {
    type Result = ();
    fn handle(&mut self, _: Halt, context: &mut Self::Context) {
        let mut go = self.sent.subscribe();
        self.sent.send_if_modified(|sent| {
            let is_first = *sent == 0;
            if is_first {
                *sent = HALTED;
            }
            is_first
        });
        let halt = async move { drop(go.wait_for(|go| *go == GO).await) };
        context.wait(halt.into_actor(self));
    }
}

impl Handler<Panic> for Player {
    type Result = ();
    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("told to");
    }
}

impl Handler<Quit> for Player {
    type Result = ();
    fn handle(&mut self, _: Quit, context: &mut Self::Context) {
        actix::ActorContext::stop(context);
    }
}

impl Handler<Large> for Player {
    type Result = Vec<u8>;
    fn handle(&mut self, message: Large, _: &mut Self::Context) -> Vec<u8> {
        message.0
    }
}

impl Handler<Give> for Player {
    type Result = Vec<u8>;
    fn handle(&mut self, message: Give, _: &mut Self::Context) -> Vec<u8> {
        vec![7; message.0]
    }
}

impl Handler<Texts> for Player {
    type Result = usize;
    fn handle(&mut self, message: Texts, _: &mut Self::Context) -> usize {
        message.0.len()
    }
}

impl Handler<Urgent> for Player {
    type Result = ();
    fn handle(&mut self, _: Urgent, _: &mut Self::Context) {}
}

impl Handler<Open<Count>> for Player {
    type Result = Result<(), Refusal>;
    fn handle(&mut self, open: Open<Count>, context: &mut Self::Context) -> Self::Result {
        if open.message.to == 0 {
            return Err(Refusal::new("nothing to count"));
        }
        let sent = self.sent.clone();
        let count = async move {
            for number in 1..=open.message.to {
                if open.sink.send((number, vec![0; open.message.bytes_each].into())).await.is_err()
                {
                    sent.send_replace(u64::MAX);
                    return;
                }
                sent.send_replace(number);
            }
        };
        context.spawn(count.into_actor(self));
        Ok(())
    }
}

impl Handler<Open<Break>> for Player {
    type Result = Result<(), Refusal>;
    fn handle(&mut self, open: Open<Break>, context: &mut Self::Context) -> Self::Result {
        let broken = async move {
            if open.sink.send(1).await.is_ok() {
                open.sink.fail(Refusal::new("cannot go on")).await;
            }
        };
        context.spawn(broken.into_actor(self));
        Ok(())
    }
}

/// The timing of every node that no test wants to be lost: a machine that stands still for seconds ends no link.
pub fn calm() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(50),
        suspect_after: Duration::from_secs(10),
        lost_after: Duration::from_secs(20),
        dial: Duration::from_secs(10),
        redial: Backoff { first: Duration::from_millis(20), most: Duration::from_millis(200) },
    }
}

/// The same, with a silence that may last so long: for tests that wait for a loss.
pub fn lost_after(silence: Duration) -> Timing {
    Timing { suspect_after: silence / 2, lost_after: silence, ..calm() }
}

/// Fast detection, for tests that wait for it.
pub fn fast() -> Timing {
    Timing { dial: Duration::from_secs(5), ..lost_after(Duration::from_secs(4)) }
}

/// A restart policy that does not make a test wait.
pub fn quick(restarts: usize) -> RestartPolicy {
    RestartPolicy {
        backoff: Backoff { first: Duration::from_millis(1), most: Duration::from_millis(10) },
        intensity: Intensity { restarts, within: Duration::from_mins(1) },
    }
}

/// A cluster's authority, and nodes of it.
pub struct Cluster {
    pub authority: ClusterAuthority,
}

impl Cluster {
    pub fn new() -> Self {
        Self { authority: ClusterAuthority::create("test").unwrap() }
    }

    pub fn config(&self, name: &str) -> NodeConfig {
        self.config_as(name, PeerRole::Node)
    }

    pub fn config_as(&self, name: &str, role: PeerRole) -> NodeConfig {
        let credential = self.authority.issue(name, role, &[], DAY).unwrap();
        let gate = Arc::new(PermitAll);
        NodeConfig { timing: calm(), gate, ..NodeConfig::new(credential) }
    }

    pub async fn node(&self, name: &str) -> ActorNode {
        ActorNode::start(self.config(name)).await.unwrap()
    }

    /// Two nodes that know each other, and a reference from the first to a player on the second.
    pub async fn pair(&self) -> (ActorNode, ActorNode, ActorRef<PlayerRole>) {
        let (a, b) = (self.node("a").await, self.node("b").await);
        introduce(&[&a, &b]);
        let player = play(&b, "player", SpawnOptions::default());
        (a.clone(), b, a.actor(player.path().clone()))
    }
}

/// Tells each node the addresses of the others.
pub fn introduce(nodes: &[&ActorNode]) {
    for one in nodes {
        for other in nodes.iter().filter(|other| other.name() != one.name()) {
            one.addresses().set(other.name().clone(), other.local_addr());
        }
    }
}

pub fn play(node: &ActorNode, name: &str, options: SpawnOptions) -> ActorRef<PlayerRole> {
    node.spawn::<PlayerRole, _>(name, options, |_| Player::default()).unwrap()
}

/// A player whose progress can be seen, and which halts until it is told to go.
pub fn shown(
    node: &ActorNode,
    name: &str,
    options: SpawnOptions,
) -> (ActorRef<PlayerRole>, watch::Sender<u64>) {
    let sent = watch::Sender::new(0);
    let shown = sent.clone();
    let player = node.spawn::<PlayerRole, _>(name, options, move |_| Player {
        sent: shown.clone(),
        ..Player::default()
    });
    (player.unwrap(), sent)
}

/// What `peer` takes up of `node`.
pub fn usage(node: &ActorNode, peer: &str) -> Option<PeerUsage> {
    node.usage().into_iter().find(|usage| usage.node.as_str() == peer)
}

/// Waits until something seen by looking holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, looking).await;
}

/// Asks until there is an answer. What a connection that is just ending has taken is lost with it, so that one ask may
/// wait for its whole deadline.
pub async fn answered(what: &str, player: &ActorRef<PlayerRole>) {
    soon(what, async {
        while player.ask(Urgent, Duration::from_secs(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Waits until a count stands still: nobody can go on.
pub async fn still(what: &str, seen: &mut watch::Receiver<u64>) -> u64 {
    let looking = async {
        loop {
            let before = *seen.borrow_and_update();
            if tokio::time::timeout(Duration::from_millis(500), seen.changed()).await.is_err() {
                return before;
            }
        }
    };
    soon(what, looking).await
}

pub fn path(node: &ActorNode, actor: &str) -> ActorPath {
    ActorPath::new(node.name().clone(), actor)
}

/// The notes of a player once there are as many as `enough` wants.
pub async fn notes(
    player: &ActorRef<PlayerRole>,
    what: &str,
    enough: impl Fn(&[u64]) -> bool,
) -> Vec<u64> {
    let mut last = Vec::new();
    let looking = async {
        loop {
            if let Ok(notes) = player.ask(Notes, LIMIT).await {
                last = notes;
                if enough(&last) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let outcome = tokio::time::timeout(LIMIT, looking).await;
    assert!(outcome.is_ok(), "{what}: not within {LIMIT:?}; last seen {last:?}");
    last
}

/// The outcome of a future that must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(elapsed) => panic!("{what}: {elapsed} ({LIMIT:?})"),
    }
}

/// The first value for which `holds`.
pub async fn within<T: Clone + Debug>(
    what: &str,
    seen: &mut watch::Receiver<T>,
    holds: impl FnMut(&T) -> bool,
) -> T {
    let outcome = tokio::time::timeout(LIMIT, seen.wait_for(holds))
        .await
        .map(|value| value.map(|value| value.clone()));
    match outcome {
        Ok(Ok(value)) => value,
        other => panic!("{what}: {other:?}; last seen {:?}", *seen.borrow()),
    }
}
