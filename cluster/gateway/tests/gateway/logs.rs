//! Logs from the actors of pods, and sessions with them, over the runtime.

use actix::{Actor, Context, Handler, MessageResult, ResponseFuture};
use futures_util::{StreamExt, TryStreamExt};
use impresario_client::protocol::pod::{
    Describe, LogChunk, Logs, LogsError, PodRole, PodSummary, Stop, actor_name,
};
use impresario_client::protocol::session::{EntranceRole, Input, Session};
use impresario_gateway::logs::{LogSource, RuntimeLogs};
use impresario_gateway::sessions::{Output, RuntimeSessions, SessionSource, Typed, With};
use impresario_runtime::{
    ActorNode, ClusterAuthority, NodeConfig, Open, PeerRole, PermitAll, Refusal,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// For a busy machine; a passing test does not spend it.
const LIMIT: Duration = Duration::from_mins(1);

/// A pod whose container `c` wrote two lines, and whose container `late` has not started. Of a node it has sessions.
struct Pod(Option<ActorNode>);

impl Actor for Pod {
    type Context = Context<Self>;
}

impl Handler<Describe> for Pod {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Context<Self>) -> Self::Result {
        MessageResult(PodSummary {
            namespace: "default".into(),
            name: "p".into(),
            uid: "u".into(),
            phase: "Running".into(),
            ready: true,
            address: None,
            containers: Vec::new(),
        })
    }
}

impl Handler<Stop> for Pod {
    type Result = ();

    fn handle(&mut self, _: Stop, _: &mut Context<Self>) {}
}

impl Handler<Open<Session>> for Pod {
    type Result = ResponseFuture<Result<(), Refusal>>;

    fn handle(&mut self, open: Open<Session>, _: &mut Context<Self>) -> Self::Result {
        let Open { message, sink } = open;
        let Some(node) = self.0.clone() else {
            return Box::pin(async { Err(Refusal::new("container late is not running")) });
        };
        Box::pin(async move {
            let Some(from) = message.input else { return Ok(()) };
            let input = Input { node: node.name().as_str().to_owned() };
            let opened = node.actor::<EntranceRole>(from).open(input, LIMIT).await;
            let mut typed = opened.map_err(|error| Refusal::new(error.to_string()))?;
            actix::spawn(async move {
                let last = loop {
                    match typed.next().await {
                        Some(Ok(Typed::Bytes(bytes))) => {
                            if sink.send(Output::Stdout(bytes)).await.is_err() {
                                return;
                            }
                        }
                        Some(Ok(Typed::End)) => break 7,
                        _ => break 9,
                    }
                };
                let _ = sink.send(Output::Ended(last)).await;
            });
            Ok(())
        })
    }
}

impl Handler<Open<Logs>> for Pod {
    type Result = Result<(), Refusal>;

    fn handle(&mut self, open: Open<Logs>, _: &mut Context<Self>) -> Self::Result {
        if open.message.container.as_deref() == Some("late") {
            let (pod, container, reason) = ("p".into(), "late".into(), "ContainerCreating".into());
            return Err(Refusal::new(LogsError::Waiting { pod, container, reason }.to_string()));
        }
        actix::spawn(async move {
            for line in ["one\n", "two\n"] {
                if open.sink.send(LogChunk { bytes: line.into() }).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

async fn read(logs: &RuntimeLogs, pod: &Value, container: &str) -> Result<String, (u16, String)> {
    let ask = Logs { container: Some(container.into()), ..Logs::default() };
    let stream = logs.open(pod, ask).await.map_err(|status| (status.code(), status.message))?;
    let pieces: Vec<_> = stream.try_collect().await.unwrap();
    Ok(String::from_utf8(pieces.concat()).unwrap())
}

/// Runs `work` with a control member that knows the node `n1`, and with that node.
fn with_a_node(work: impl AsyncFnOnce(ActorNode, ActorNode)) {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    };
    actix::System::with_tokio_rt(runtime).block_on(async {
        let authority = ClusterAuthority::create("test").unwrap();
        let node = async |name: &str, role| {
            let credential = authority.issue(name, role, &[], Duration::from_hours(1)).unwrap();
            ActorNode::start(NodeConfig {
                gate: Arc::new(PermitAll),
                ..NodeConfig::new(credential)
            })
            .await
            .unwrap()
        };
        let (machine, control) =
            (node("n1", PeerRole::Node).await, node("c1", PeerRole::Control).await);
        control.addresses().set(machine.name().clone(), machine.local_addr());
        work(control.clone(), machine.clone()).await;
        control.stop(Duration::from_secs(2)).await;
        machine.stop(Duration::from_secs(2)).await;
    });
}

fn pod(uid: &str, phase: &str) -> Value {
    json!({"metadata": {"name": "p", "uid": uid}, "spec": {"nodeName": "n1"}, "status": {"phase": phase}})
}

#[test]
fn a_log_comes_from_the_pods_node_and_a_refusal_in_the_words_of_kubernetes() {
    with_a_node(async |control, machine| {
        let _pod = machine.register::<PodRole, _>(actor_name("u"), Pod(None).start()).unwrap();
        let logs = RuntimeLogs::new(control);

        assert_eq!(read(&logs, &pod("u", "Running"), "c").await.unwrap(), "one\ntwo\n");
        let waiting = "container \"late\" in pod \"p\" is waiting to start: ContainerCreating";
        assert_eq!(read(&logs, &pod("u", "Pending"), "late").await, Err((400, waiting.to_owned())));
        assert_eq!(
            read(&logs, &pod("unknown", "Pending"), "late").await,
            Err((400, waiting.to_owned()))
        );
        assert_eq!(read(&logs, &pod("unknown", "Running"), "c").await.unwrap_err().0, 500);
    });
}

#[test]
fn a_session_goes_both_ways_between_a_control_member_and_the_pods_node() {
    with_a_node(async |control, machine| {
        let actor = Pod(Some(machine.clone())).start();
        let _pod = machine.register::<PodRole, _>(actor_name("u"), actor).unwrap();
        let silent = Pod(None).start();
        let _late = machine.register::<PodRole, _>(actor_name("late"), silent).unwrap();
        let sessions = RuntimeSessions::new(control);
        let open = async |uid: &str| {
            let (typed, comes) = mpsc::channel(1);
            let opened = sessions.open(&pod(uid, "Running"), With::Port(80), Some(comes)).await;
            opened.map(|said| (typed, said))
        };
        let (typed, mut said) = open("u").await.unwrap();
        // More than all the windows between them hold, so that the one has to wait for the other.
        let types = actix::spawn(async move {
            for _ in 0..200 {
                typed.send(Typed::Bytes(vec![7; 32 * 1024])).await.unwrap();
            }
            typed.send(Typed::End).await.unwrap();
        });
        let (mut bytes, mut code) = (0, None);
        while let Some(item) = tokio::time::timeout(LIMIT, said.next()).await.unwrap() {
            match item.unwrap() {
                Output::Stdout(piece) => bytes += piece.len(),
                Output::Ended(with) => code = Some(with),
                Output::Stderr(piece) => panic!("{piece:?}"),
            }
        }
        assert_eq!((bytes, code), (200 * 32 * 1024, Some(7)));
        types.await.unwrap();

        // Who types is gone without a word.
        let (typed, mut said) = open("u").await.unwrap();
        drop(typed);
        let last = tokio::time::timeout(LIMIT, said.next()).await.unwrap();
        assert_eq!(last, Some(Ok(Output::Ended(9))));

        let refused = open("late").await.map(drop).unwrap_err();
        assert_eq!(
            (refused.code(), refused.message.as_str()),
            (400, "container late is not running")
        );
        let unknown = open("unknown").await.map(drop).unwrap_err();
        assert_eq!(unknown.code(), 500);
        assert!(unknown.message.contains("node n1 does not know pod p"), "{unknown}");
    });
}
