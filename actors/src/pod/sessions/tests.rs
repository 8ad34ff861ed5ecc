//! Sessions at a pod of a machine in memory.

use super::*;
use crate::testing::{LIMIT, Machine};
use impresario_client::protocol::pod::{PodRole, actor_name};
use impresario_registry_api::Key;
use impresario_runtime::{AskError, Registration};
use serde_json::json;
use tokio::time::timeout;

/// An actor that gives this to whoever asks for the input, and says where it was asked.
struct Entrance(Option<Vec<Typed>>);

impl Actor for Entrance {
    type Context = Context<Self>;
}

impl Handler<Open<Input>> for Entrance {
    type Result = Result<(), Refusal>;

    fn handle(&mut self, open: Open<Input>, _: &mut Self::Context) -> Self::Result {
        assert_eq!(open.message.node, "n1");
        let typed = self.0.take().ok_or_else(|| Refusal::new("it is taken"))?;
        actix::spawn(async move {
            for one in typed {
                if open.sink.send(one).await.is_err() {
                    return;
                }
            }
            if open.sink.is_closed() {
                return;
            }
            open.sink.closed().await;
        });
        Ok(())
    }
}

async fn with_a_pod() -> (Machine, Key) {
    let machine = Machine::start(1000).await;
    let spec = json!({"nodeName": "n1", "restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i", "command": ["serve"]}]});
    let key = machine.create("p", spec).await;
    machine.until(&key, "running", |pod| pod["status"]["phase"] == "Running").await;
    (machine, key)
}

fn entrance(machine: &Machine, typed: &[Typed]) -> (ActorPath, Registration) {
    let actor = Entrance(Some(typed.to_vec())).start();
    let registered = machine.node.register::<EntranceRole, _>("entrance/1", actor).unwrap();
    (ActorPath::new("n1", "entrance/1"), registered)
}

fn command(words: &str) -> With {
    let command = words.split(' ').map(str::to_owned).collect();
    With::Command { container: "c".into(), command, stdin: true, tty: false }
}

async fn open(machine: &Machine, session: Session) -> Result<ItemStream<Output>, AskError> {
    machine.node.local::<PodRole>(actor_name("p")).open(session, LIMIT).await
}

#[actix::test]
async fn what_is_typed_reaches_a_command_and_what_it_writes_comes_back_with_its_exit_code() {
    let (machine, _) = with_a_pod().await;
    let typed =
        [Typed::Bytes(b"hello".to_vec()), Typed::Resize { width: 80, height: 25 }, Typed::End];
    let (input, _registered) = entrance(&machine, &typed);
    let session = Session { with: command("exit 7"), input: Some(input) };
    let items = open(&machine, session).await.unwrap();
    let items: Vec<_> = timeout(LIMIT, items.collect()).await.unwrap();
    let expected =
        [Output::Stdout(b"hello".to_vec()), Output::Stderr(b"80x25".to_vec()), Output::Ended(7)];
    assert_eq!(items, expected.map(Ok));
}

#[actix::test]
async fn a_session_whose_container_does_not_run_is_refused_and_says_so() {
    let (machine, _) = with_a_pod().await;
    let with = With::Command {
        container: "other".into(),
        command: vec!["exit".into()],
        stdin: false,
        tty: false,
    };
    let refused = open(&machine, Session { with, input: None }).await.unwrap_err();
    let reason = "container other is not valid for pod p".to_owned();
    assert_eq!(refused, AskError::Refused { reason });
    let with = With::Container { container: "c".into(), stdin: true };
    let refused = open(&machine, Session { with, input: None }).await.unwrap_err();
    assert!(refused.to_string().contains("attach without it"), "{refused}");
}

#[actix::test]
async fn a_pod_has_so_many_sessions_and_a_place_comes_back_when_nobody_listens() {
    let (machine, _) = with_a_pod().await;
    let begin = || Session { with: command("go on"), input: None };
    let mut all = Vec::new();
    for _ in 0..SESSIONS {
        all.push(open(&machine, begin()).await.unwrap());
    }
    let refused = open(&machine, begin()).await.unwrap_err();
    assert!(refused.to_string().contains("pod p has 64 sessions already"), "{refused}");
    all.clear();
    crate::testing::eventually("a place is free", async || open(&machine, begin()).await).await;
}

#[actix::test]
async fn a_session_ends_with_its_container() {
    let (machine, _) = with_a_pod().await;
    let mut items = open(&machine, Session { with: command("go on"), input: None }).await.unwrap();
    machine.driver.end("p/c/0", 0);
    let last = timeout(LIMIT, items.next()).await.unwrap();
    let error = last.unwrap().unwrap_err().to_string();
    assert!(error.contains("the container has ended"), "{error}");
}
