//! Nodes, pods, schedulers, control actors, and the faults of a node under test.

use crate::record::{Record, every};
use impresario_api::status::{Reason, Status as ApiStatus};
use impresario_client::objects::protocol::{Refusal, Sender};
use impresario_client::protocol::resources::Resources;
use impresario_client::protocol::scheduler::{
    Examination, Examine, Explain, Explanation, NodeSummary, NotWaiting, SchedulerStatus,
    ScoredNode, Status, SummaryChanged, UnfitNode,
};
use impresario_client::protocol::{actors, control, node, pod, session, traffic, usage};
use impresario_registry_api::Key;
use impresario_runtime::{ActorPath, Direction, FaultRule, PeerRole, SetFaults};
use std::time::Duration;

fn resources() -> Resources {
    let mut resources =
        Resources { cpu_milli: 1500, memory_bytes: 1 << 33, pods: 1, ..Resources::default() };
    resources.set("nvidia.com/gpu", 2);
    resources
}

fn summary() -> NodeSummary {
    NodeSummary {
        node: "n1".into(),
        incarnation: 7,
        serial: 9,
        allocatable: resources(),
        free: Resources::default(),
        pods: 3,
        reserved: 1,
        draining: true,
    }
}

pub fn record() -> Record {
    let record = schedulers(sessions(pods(nodes(Record::of("nodes")))));
    let description = control::Description {
        subject: "jobs ns/j".into(),
        shard: 63,
        epoch: 300,
        looks: 4,
        last_error: Some("no leader".into()),
    };
    let sender = Sender { name: "program".into(), role: PeerRole::Client };
    let refusal = Refusal::from(ApiStatus::new(Reason::Forbidden, "it may not"));
    let rules = every([Direction::Send, Direction::Receive]).map(|direction| FaultRule {
        drop: 0.5,
        delay: Duration::from_millis(3),
        cut: true,
        ..FaultRule::new(Some("n2".into()), direction)
    });
    let refused = traffic::Refused {
        role: "guest".into(),
        cause: "the gate does not permit it".into(),
        message: "registry.Transact".into(),
        count: 300,
    };
    let peer = traffic::PeerUsage {
        node: "n1".into(),
        role: Some("node".into()),
        held_bytes: 70_000,
        asks: 2,
        watches: 3,
    };
    let unmet = traffic::PeerUsage { role: None, ..peer.clone() };
    let traffic = traffic::Traffic {
        refused: vec![refused],
        peers: vec![peer, unmet],
        peers_in_all: 300,
        held_bytes: 1 << 20,
    };
    let told = control::Told {
        node: "n1".into(),
        key: Key::new("pods", "ns", "p"),
        uid: "u".into(),
        revision: 70_000,
    };
    actors(record)
        .ask([traffic::Describe], [traffic, traffic::Traffic::default()])
        .ask([report()], [()])
        .ask([control::Changed], [()])
        .ask([told], [()])
        .ask(
            [control::Scale { sender: sender.clone(), replicas: 300 }],
            [Ok(70_000), Err(refusal.clone())],
        )
        .ask([control::Suspend { sender, suspend: true }], [Ok(7), Err(refusal)])
        .ask([control::Describe], [description, control::Description::default()])
        .ask([SetFaults { rules: rules.into() }], [()])
}

fn report() -> usage::Report {
    let amounts = usage::Amounts { cpu_nanos: 70_000, memory_bytes: 1 << 33 };
    let containers = vec![usage::ContainerUsage { name: "c".into(), amounts }];
    let pods = vec![usage::PodUsage { uid: "u".into(), window_ms: 4000, containers }];
    usage::Report { node: "n1".into(), taken_ms: -1, window_ms: 5000, amounts, pods }
}

fn actors(record: Record) -> Record {
    let mailbox =
        actors::Mailbox { messages: 3, bytes: 70_000, limit_messages: 1024, limit_bytes: 1 << 28 };
    let actor = actors::Actor {
        name: "pod/ab".into(),
        role: "pod".into(),
        restarts: 2,
        up_millis: 300_000,
        mailbox: Some(mailbox),
    };
    let registered = actors::Actor { mailbox: None, ..actor.clone() };
    let page = actors::Page { actors: vec![actor, registered], all: 300, more: true };
    let list = [Some("node".to_owned()), None].map(|after| actors::List { after, most: 500 });
    record.ask(list, [page, actors::Page::default()])
}

fn nodes(record: Record) -> Record {
    let reserve = node::Reserve {
        pods: vec![node::PodReservation { uid: "ab".into(), resources: resources() }],
        ttl: Duration::from_millis(2500),
    };
    let grants = every([
        node::Grant::Reserved { uid: "u".into(), lease: node::Lease(3) },
        node::Grant::Refused { uid: "v".into(), free: resources(), reason: "no cpu".into() },
    ]);
    record
        .ask([reserve], [grants.into()])
        .ask([node::Release { leases: vec![node::Lease(3)] }], [()])
        .ask([node::Describe], [summary()])
        .ask(
            [node::Follow { subscriber: ActorPath::new("n1", "scheduler/default-scheduler") }],
            [summary()],
        )
        .ask([true, false].map(|draining| node::Drain { draining }), [summary()])
}

fn pods(record: Record) -> Record {
    let container = pod::ContainerSummary {
        name: "main".into(),
        state: "running".into(),
        restarts: 2,
        ready: true,
    };
    let described = pod::PodSummary {
        namespace: "ns".into(),
        name: "p".into(),
        uid: "u".into(),
        phase: "Running".into(),
        ready: true,
        address: Some("127.1.0.2".into()),
        containers: vec![container],
    };
    let logs = pod::Logs {
        container: Some("main".into()),
        follow: true,
        tail_lines: Some(300),
        since_unix_nanos: Some(-1),
        timestamps: false,
        limit_bytes: Some(70_000),
        previous: true,
    };
    record
        .ask([pod::Describe], [described])
        .ask(
            [Some(Duration::from_secs(30)), None].map(|grace| pod::Stop {
                grace,
                reason: "Evicted".into(),
                message: "low memory".into(),
            }),
            [()],
        )
        .stream([pod::Logs::default(), logs], [pod::LogChunk { bytes: vec![0, 255] }])
}

fn sessions(record: Record) -> Record {
    let (container, command) = ("main".to_owned(), vec!["sh".to_owned(), "-c".to_owned()]);
    let with = [
        session::With::Command { container: container.clone(), command, stdin: true, tty: false },
        session::With::Container { container, stdin: true },
        session::With::Port(8080),
    ];
    let input = Some(ActorPath::new("m1", "entrance/1"));
    let opened = with.map(|with| session::Session { with, input: input.clone() });
    let output = [
        session::Output::Stdout(vec![0, 255]),
        session::Output::Stderr(vec![1]),
        session::Output::Ended(-1),
    ];
    let typed = [
        session::Typed::Bytes(vec![0, 255]),
        session::Typed::End,
        session::Typed::Resize { width: 80, height: 300 },
    ];
    record.stream(opened, output).stream([session::Input { node: "n1".into() }], typed)
}

fn schedulers(record: Record) -> Record {
    let status = SchedulerStatus {
        name: "s".into(),
        policy: "random".into(),
        pending: 1,
        unschedulable: 2,
        nodes: [("n1".to_owned(), resources())].into(),
        bound: 300,
        refused: 0,
    };
    let explanation =
        Explanation { requests: resources(), attempts: 2, message: "0/1 nodes".into() };
    let examination = Examination {
        requests: resources(),
        attempts: 2,
        message: "0/1 nodes".into(),
        nominated: Some("n1".into()),
        nodes: 300,
        unfit: vec![UnfitNode { node: "n1".into(), reasons: vec!["Too many pods".into()] }],
        best: vec![ScoredNode {
            node: "n2".into(),
            score: -3,
            parts: vec![("NodeAffinity".into(), -3)],
        }],
        fitting: 299,
    };
    let not_waiting = || NotWaiting { namespace: "ns".into(), pod: "p".into() };
    record
        .ask([SummaryChanged { summary: summary() }], [()])
        .ask([Status], [status])
        .ask(
            [Explain { namespace: "ns".into(), pod: "p".into() }],
            [Ok(explanation), Err(not_waiting())],
        )
        .ask(
            [Examine { namespace: "ns".into(), pod: "p".into() }],
            [Ok(examination), Err(not_waiting())],
        )
}
