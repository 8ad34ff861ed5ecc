//! Logs from the actors of pods, over the runtime.

use actix::{Actor, Context, Handler, MessageResult};
use futures_util::TryStreamExt;
use impresario_client::protocol::pod::{
    Describe, LogChunk, Logs, LogsError, PodRole, PodSummary, Stop, actor_name,
};
use impresario_gateway::logs::{LogSource, RuntimeLogs};
use impresario_runtime::{
    ActorNode, ClusterAuthority, NodeConfig, Open, PeerRole, PermitAll, Refusal,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// A pod whose container `c` wrote two lines, and whose container `late` has not started.
struct Pod;

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

#[test]
fn a_log_comes_from_the_pods_node_and_a_refusal_in_the_words_of_kubernetes() {
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
        let (machine, control) = (node("n1", PeerRole::Node).await, node("c1", PeerRole::Control).await);
        control.addresses().set(machine.name().clone(), machine.local_addr());
        let _pod = machine.register::<PodRole, _>(actor_name("u"), Pod.start()).unwrap();
        let logs = RuntimeLogs::new(control.clone());
        let pod = |uid: &str, phase: &str| {
            json!({"metadata": {"name": "p", "uid": uid}, "spec": {"nodeName": "n1"}, "status": {"phase": phase}})
        };

        assert_eq!(read(&logs, &pod("u", "Running"), "c").await.unwrap(), "one\ntwo\n");
        let waiting = "container \"late\" in pod \"p\" is waiting to start: ContainerCreating";
        assert_eq!(read(&logs, &pod("u", "Pending"), "late").await, Err((400, waiting.to_owned())));
        assert_eq!(read(&logs, &pod("unknown", "Pending"), "late").await, Err((400, waiting.to_owned())));
        assert_eq!(read(&logs, &pod("unknown", "Running"), "c").await.unwrap_err().0, 500);
        control.stop(Duration::from_secs(2)).await;
        machine.stop(Duration::from_secs(2)).await;
    });
}
