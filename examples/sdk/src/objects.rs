//! The actors of objects: each deployment has one, and each pod. Anybody who may read may ask how they do; what they
//! are to do is for those to say who may change the object.

use futures_util::StreamExt;
use impresario_client::protocol::control::{ControlRole, Describe};
use impresario_client::protocol::pod::{self, Logs, PodRole, Stop};
use impresario_client::{AskedError, Client, Select, actor_of};
use impresario_runtime::{ActorPath, ActorRef, NodeName};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use std::error::Error;
use std::time::Duration;

/// How long an actor has to answer.
pub const ASK_LIMIT: Duration = Duration::from_secs(30);

/// Whatever went wrong.
pub type Failed = Box<dyn Error>;

/// So many pods are asked.
const PODS: usize = 3;

/// Asks the actors of deployments and of some pods.
pub async fn ask(client: &Client) -> Result<(), Failed> {
    let (deployments, _) = client.api::<Deployment>("")?.list(Select::default()).await?;
    for deployment in &deployments {
        let Some(actor) = actor_of(deployment) else { continue };
        match client.ask_member::<ControlRole, _>(&actor, Describe, ASK_LIMIT).await {
            Ok((_, told)) => println!("{}: looked {} times", told.subject, told.looks),
            Err(error) => println!("{actor}: {error}"),
        }
        // A client changes nothing: neither the object, nor through its actor.
        let replicas = deployment.spec.replicas.unwrap_or(1);
        let replicas = u32::try_from(replicas).unwrap_or_default();
        match client.scale(&actor, replicas, ASK_LIMIT).await {
            Err(AskedError::Refused(why)) => println!("to scale is refused: {}", why.message),
            Err(error) => println!("{actor}: {error}"),
            Ok(_) => return Err("a client scaled a deployment: check the cluster's rules".into()),
        }
    }
    let (pods, _) = client.api::<Pod>("")?.list(Select::default()).await?;
    for pod in pods.iter().filter_map(|pod| actor_of_pod(client, pod)).take(PODS) {
        match pod.ask(pod::Describe, ASK_LIMIT).await {
            Ok(told) => {
                println!("{}: {}/{} is {}", pod.path(), told.namespace, told.name, told.phase);
            }
            Err(error) => println!("{}: {error}", pod.path()),
        }
        let last = Logs { tail_lines: Some(1), ..Logs::default() };
        // A pod of several containers wants one to be named, one that has not begun has no log.
        let Ok(mut lines) = pod.open(last, ASK_LIMIT).await else { continue };
        while let Some(Ok(chunk)) = lines.next().await {
            print!("  {}", String::from_utf8_lossy(&chunk.bytes));
        }
    }
    Ok(())
}

/// Has a deployment of the namespace `default` keep so many copies. `NAME=N`.
pub async fn scale(operator: &Client, wanted: &str) -> Result<(), Failed> {
    let (name, replicas) = wanted.split_once('=').ok_or("--scale is NAME=N, such as web=3")?;
    let deployment = operator.api::<Deployment>("default")?.get(name).await?;
    let actor = actor_of(&deployment).ok_or("the deployment has no uid")?;
    let revision = operator.scale(&actor, replicas.parse()?, ASK_LIMIT).await?;
    println!("{actor} keeps {replicas} copies since revision {revision}");
    Ok(())
}

/// Ends a pod of the namespace `default` as an eviction does. Its object stays.
pub async fn stop(operator: &Client, name: &str) -> Result<(), Failed> {
    let pod = operator.api::<Pod>("default")?.get(name).await?;
    let actor = actor_of_pod(operator, &pod).ok_or("the pod is on no node")?;
    let why = "the program asked for it".to_owned();
    actor.ask(Stop { grace: None, reason: "Stopped".into(), message: why }, ASK_LIMIT).await?;
    println!("{} ends", actor.path());
    Ok(())
}

/// The actor of a pod lives on the pod's node.
fn actor_of_pod(client: &Client, pod: &Pod) -> Option<ActorRef<PodRole>> {
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    Some(client.actor(ActorPath::new(NodeName::from(node), actor_of(pod)?)))
}
