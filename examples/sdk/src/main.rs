//! A program of your own against an Impresario cluster: joins it with a client token, reads and
//! watches pods, asks a scheduler, a node and the actors of objects, and meets the limits of its role. With the
//! credential of an operator it has a deployment scaled and a pod stopped.
//!
//! ```text
//! cargo run -p impresario-sdk-example -- --join ADDRESS --token TOKEN --dir DIR
//! ```
//!
//! Exit codes: 0 done; 1 refused or failed, with the reason on standard error; 2 wrong usage.

mod objects;

use clap::Parser;
use futures_util::StreamExt;
use impresario_client::protocol::node::{Describe, Drain, NODE, NodeRole};
use impresario_client::protocol::scheduler::{self, SchedulerRole};
use impresario_client::{Client, Event, Select};
use impresario_runtime::{ActorPath, Credential, NodeName};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use objects::{ASK_LIMIT, Failed};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long the connections have to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Looks at a cluster as a client.
#[derive(Debug, Parser)]
struct Arguments {
    /// The address of a control member, as `imp token create` prints it.
    #[arg(long, value_name = "ADDRESS")]
    join: String,
    /// A token of `imp token create --role client`; not used again once DIR holds a credential.
    #[arg(long, value_name = "TOKEN", env = "IMPRESARIO_TOKEN", hide_env_values = true)]
    token: String,
    /// What the client's name begins with.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where the credential is kept.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// For how many seconds pods are watched.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    watch: u64,
    /// The folder of an operator's credential, for what a client may not do: `~/.impresario/admin`.
    #[arg(long, value_name = "DIR")]
    operator: Option<PathBuf>,
    /// Have a deployment of the namespace `default` scaled: its name, and how many copies.
    #[arg(long, value_name = "NAME=N", requires = "operator")]
    scale: Option<String>,
    /// Have a pod of the namespace `default` ended, as an eviction does.
    #[arg(long, value_name = "POD", requires = "operator")]
    stop: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Actors live in an actix system; a client is an actor node like any other.
    match actix::System::new().block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments { join, token, name, dir, watch, operator, scale, stop } = arguments;
    let client = Client::join(&join, &token, name, &dir).await?;
    println!("joined as {}", client.node().name());

    // The addresses of all nodes, so that their actors can be asked.
    let nodes = client.learn_nodes().await?;
    list_pods(&client).await?;
    ask_actors(&client, &nodes).await?;
    meet_limits(&client, &nodes).await?;
    objects::ask(&client).await?;
    if let Some(folder) = operator {
        let operator = connect(&client, &nodes, &folder).await?;
        if let Some(wanted) = scale {
            objects::scale(&operator, &wanted).await?;
        }
        if let Some(pod) = stop {
            objects::stop(&operator, &pod).await?;
        }
        operator.close(CLOSE_LIMIT).await;
    }
    watch_pods(&client, Duration::from_secs(watch)).await?;
    client.close(CLOSE_LIMIT).await;
    Ok(())
}

/// Connects once more, as the operator.
async fn connect(client: &Client, nodes: &[NodeName], folder: &Path) -> Result<Client, Failed> {
    // Who of them is a control member shows when it is asked.
    let addresses = client.node().addresses();
    let known = nodes.iter().filter_map(|name| Some((name.clone(), addresses.get(name)?)));
    let known: Vec<_> = known.collect();
    let operator = Client::connect(Credential::load(folder)?, &known).await?;
    operator.learn_nodes().await?;
    Ok(operator)
}

/// Typed objects, as of `k8s-openapi`.
async fn list_pods(client: &Client) -> Result<(), Box<dyn Error>> {
    let (pods, revision) = client.api::<Pod>("")?.list(Select::default()).await?;
    println!("{} pods at revision {revision}", pods.len());
    for pod in &pods {
        println!("  {}", line(pod));
    }
    Ok(())
}

/// Messages to actors: the scheduler runs on whichever control member holds its shard, a node actor
/// on every machine.
async fn ask_actors(client: &Client, nodes: &[NodeName]) -> Result<(), Box<dyn Error>> {
    let name = scheduler::actor_name(scheduler::DEFAULT_SCHEDULER);
    let (scheduler, status) =
        client.ask_member::<SchedulerRole, _>(&name, scheduler::Status, ASK_LIMIT).await?;
    println!(
        "{}: policy {}, {} pods wait, {} bound",
        scheduler.path(),
        status.policy,
        status.pending,
        status.bound
    );
    for name in nodes {
        let node = client.actor::<NodeRole>(ActorPath::new(name.clone(), NODE));
        // A node that is down is no reason to fail: say so, and go on.
        match node.ask(Describe, ASK_LIMIT).await {
            Ok(summary) => {
                let (free, all) = (&summary.free, &summary.allocatable);
                println!(
                    "{}: {} pods, {}m of {}m CPU free, {} of {} GPUs free",
                    node.path(),
                    summary.pods,
                    free.cpu_milli,
                    all.cpu_milli,
                    free.gpus(),
                    all.gpus()
                );
            }
            Err(error) => println!("{}: {error}", node.path()),
        }
    }
    Ok(())
}

/// A client reads and asks; it changes nothing. Both refusals are made by the cluster, by what the
/// client's certificate says, not by this library.
async fn meet_limits(client: &Client, nodes: &[NodeName]) -> Result<(), Box<dyn Error>> {
    let mut map = ConfigMap::default();
    map.metadata.name = Some("written-by-a-client".into());
    map.data = Some(BTreeMap::from([("key".into(), "value".into())]));
    match client.api::<ConfigMap>("default")?.create(&map).await {
        Err(refused) => println!("a write is refused: {refused}"),
        Ok(_) => return Err("a client's write was accepted: check the gate of the cluster".into()),
    }
    if let Some(name) = nodes.first() {
        let node = client.actor::<NodeRole>(ActorPath::new(name.clone(), NODE));
        match node.ask(Drain { draining: true }, ASK_LIMIT).await {
            Err(refused) => println!("a drain is refused: {refused}"),
            Ok(_) => return Err("a client's drain was accepted: check the gate of the node".into()),
        }
    }
    Ok(())
}

/// What happens from now on. A watch goes on over the loss of the member that serves it.
async fn watch_pods(client: &Client, time: Duration) -> Result<(), Box<dyn Error>> {
    let pods = client.api::<Pod>("")?;
    let (_, revision) = pods.list(Select::default()).await?;
    let mut events = pods.watch(Select::default(), Some(revision)).await?;
    println!("watching pods for {time:?}");
    let end = tokio::time::sleep(time);
    tokio::pin!(end);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = &mut end => return Ok(()),
        };
        match event {
            Some(Ok(Event::Added(pod))) => println!("  added     {}", line(&pod)),
            Some(Ok(Event::Modified(pod))) => println!("  modified  {}", line(&pod)),
            Some(Ok(Event::Deleted(pod))) => println!("  deleted   {}", line(&pod)),
            Some(Ok(Event::Progress(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
    }
}

fn line(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    format!(
        "{}/{} {} on {}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
        phase.unwrap_or("Unknown"),
        node.unwrap_or("no node yet")
    )
}
