//! Opens what goes both ways between somebody and the pod: commands in its containers, the containers, its ports.
//!
//! A session is cut, and what was started for it is ended, when either of its streams is lost, when nobody reads it any
//! more, and when its container has ended.

use super::{PodActor, SESSIONS, life::Life};
use actix::prelude::*;
use bytes::Bytes;
use futures_util::StreamExt;
use impresario_client::protocol::session::{
    EntranceRole, Input, Output, Session, SessionError, Typed, With,
};
use impresario_host::{
    ContainerDriver, ContainerId,
    container::{Attached, Size, Typed as In, Wanted, Written},
    forward::forward,
};
use impresario_runtime::{ActorNode, ActorPath, ItemSink, ItemStream, Open, Refusal, tasks};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// How long the input may take to be opened.
const INPUT_LIMIT: Duration = Duration::from_secs(5);
/// How long what was begun in a container may go on, to say what it has to say, when the container has ended.
const AFTER_THE_CONTAINER: Duration = Duration::from_secs(2);

/// What a session is opened at.
enum At {
    Command(ContainerId, Wanted),
    Container(ContainerId, bool),
    Port(SocketAddr),
}

impl PodActor {
    fn running(&self, container: &str) -> Result<ContainerId, SessionError> {
        let (pod, name) = (self.name().to_owned(), container.to_owned());
        let found = self.life.container(container);
        let Some(found) = found else {
            return Err(SessionError::NoSuchContainer { pod, container: name });
        };
        let state = match &found.life {
            Life::Running { id, .. } => return Ok(id.clone()),
            Life::Waiting { reason, .. } => format!("waiting: {reason}"),
            Life::Starting => "waiting: ContainerCreating".to_owned(),
            Life::Ended(ended) => format!("terminated: {}", ended.exit.reason),
        };
        Err(SessionError::NotRunning { pod, container: name, state })
    }

    fn place_of(&self, with: With) -> Result<At, SessionError> {
        Ok(match with {
            With::Command { container, command, stdin, tty } => {
                At::Command(self.running(&container)?, Wanted { command, stdin, tty })
            }
            With::Container { container, stdin } => At::Container(self.running(&container)?, stdin),
            With::Port(port) => {
                let address = self.address().filter(|_| !self.kit.driver.is_hollow());
                let none = || SessionError::NoAddress { pod: self.name().to_owned() };
                At::Port(SocketAddr::new(address.ok_or_else(none)?, port))
            }
        })
    }
}

impl Handler<Open<Session>> for PodActor {
    type Result = ResponseFuture<Result<(), Refusal>>;

    fn handle(&mut self, open: Open<Session>, _: &mut Self::Context) -> Self::Result {
        let Open { message: Session { with, input }, sink } = open;
        let pod = self.name().to_owned();
        let place = self.sessions.clone().try_acquire_owned();
        let place = place.map_err(|_| SessionError::TooMany { pod: pod.clone(), most: SESSIONS });
        let found = place.and_then(|place| Ok((place, self.place_of(with)?)));
        let (driver, node) = (self.kit.driver.clone(), self.kit.node.clone());
        Box::pin(async move {
            let refusal = |error: SessionError| Refusal::new(error.to_string());
            let (place, at) = found.map_err(refusal)?;
            let in_container = match &at {
                At::Command(id, _) | At::Container(id, _) => Some(id.clone()),
                At::Port(_) => None,
            };
            let attached = match at {
                At::Command(id, wanted) => driver.run(&id, wanted).await,
                At::Container(id, stdin) => driver.attach(&id, stdin).await,
                At::Port(to) => {
                    let no_connection = |cause: std::io::Error| {
                        let cause = cause.to_string();
                        refusal(SessionError::NoConnection { pod, port: to.port(), cause })
                    };
                    Ok(forward(to).await.map_err(no_connection)?)
                }
            };
            let attached = attached.map_err(|error| Refusal::new(error.to_string()))?;
            let typed = match input {
                Some(from) => Some(open_input(&node, from).await?),
                None => None,
            };
            // Ends with what was opened, or when nobody reads it any more.
            tasks::spawn(async move {
                let _place = place;
                let over = container_over(driver, in_container);
                if let Err(why) = carry(attached, typed, &sink, over).await {
                    sink.fail(why).await;
                }
            });
            Ok(())
        })
    }
}

async fn open_input(node: &ActorNode, from: ActorPath) -> Result<ItemStream<Typed>, Refusal> {
    let input = Input { node: node.name().as_str().to_owned() };
    let opened = node.actor::<EntranceRole>(from).open(input, INPUT_LIMIT).await;
    opened.map_err(|error| Refusal::new(format!("the input cannot be had: {error}")))
}

/// Until the container has ended and a moment more; for ever where it is not about one.
async fn container_over(driver: Arc<dyn ContainerDriver>, id: Option<ContainerId>) {
    let Some(id) = id else { return std::future::pending().await };
    // Whether it ended well, or nobody knows it any more: nothing more is to be had of it.
    let _ = driver.wait(&id).await;
    tokio::time::sleep(AFTER_THE_CONTAINER).await;
}

/// Carries both directions until the session is over; `Err` says that it was cut, and why.
async fn carry(
    attached: Attached,
    typed: Option<ItemStream<Typed>>,
    sink: &ItemSink<Output>,
    over: impl Future<Output = ()>,
) -> Result<(), Refusal> {
    let Attached { input, output } = attached;
    let (feeding, giving) = (feed(typed, input), give(output, sink));
    tokio::pin!(feeding, giving, over);
    let mut is_fed = false;
    loop {
        tokio::select! {
            given = &mut giving => return given,
            fed = &mut feeding, if !is_fed => {
                fed?;
                is_fed = true;
            }
            () = sink.closed() => return Ok(()),
            () = &mut over => return Err(Refusal::new("the container has ended")),
        }
    }
}

/// Gives on what is typed until nothing more is. What is typed at a session that reads nothing is dropped.
async fn feed(
    typed: Option<ItemStream<Typed>>,
    input: Option<mpsc::Sender<In>>,
) -> Result<(), Refusal> {
    let Some(mut typed) = typed else { return Ok(()) };
    let mut input = input;
    loop {
        let item = match typed.next().await {
            Some(Ok(Typed::End)) => {
                input = None;
                continue;
            }
            Some(Ok(Typed::Bytes(bytes))) => In::Bytes(Bytes::from(bytes)),
            Some(Ok(Typed::Resize { width, height })) => In::Resize(Size { width, height }),
            Some(Err(error)) => return Err(Refusal::new(error.to_string())),
            None => return Err(Refusal::new("whoever wrote to it is gone")),
        };
        if let Some(to) = &input
            && to.send(item).await.is_err()
        {
            // It reads no more; that is no reason to end it.
            input = None;
        }
    }
}

async fn give(mut output: mpsc::Receiver<Written>, sink: &ItemSink<Output>) -> Result<(), Refusal> {
    while let Some(written) = output.recv().await {
        let (item, is_last) = match written {
            Written::Stdout(bytes) => (Output::Stdout(bytes.to_vec()), false),
            Written::Stderr(bytes) => (Output::Stderr(bytes.to_vec()), false),
            Written::Ended(code) => (Output::Ended(code), true),
        };
        if sink.send(item).await.is_err() || is_last {
            return Ok(());
        }
    }
    Err(Refusal::new("it was cut: what it ended with is not known"))
}

#[cfg(test)]
mod tests;
