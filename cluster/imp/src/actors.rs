//! `imp actors`: who lives on which node, what waits for them, how often they were started again.

use crate::admin::{Admin, AdminError};
use crate::cli::Actors;
use crate::layout::ClusterDir;
use crate::output::say;
use crate::structured::Structured;
use futures_util::StreamExt as _;
use impresario_api::table::human_duration;
use impresario_client::ClientError;
use impresario_client::protocol::actors::{ACTORS, Actor, ActorsRole, List, Mailbox, PAGE};
use impresario_runtime::{ActorPath, AskError, NodeName};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use thiserror::Error;

/// How long a node has for each page.
const PAGE_LIMIT: Duration = Duration::from_secs(5);
/// So many nodes are asked at a time.
const AT_A_TIME: usize = 16;
/// So many pages are taken from a node: more than any can have.
const PAGES: usize = 2_000;

/// Why it is not known who lives where.
#[derive(Debug, Error)]
pub enum ActorsError {
    /// There is no way in.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Which nodes there are cannot be read.
    #[error("the addresses of the nodes cannot be read: {0}")]
    Nodes(#[from] ClientError),
    /// No such node.
    #[error("there is no node {0}: see `imp get nodes`")]
    NoNode(String),
    /// Some did not tell.
    #[error("{}", .0.iter().map(|(node, why)| format!("{node} does not tell: {why}")).collect::<Vec<_>>().join("\n"))]
    Silent(Vec<(NodeName, AskError)>),
}

/// Prints them.
pub async fn print(args: &Actors) -> Result<(), ActorsError> {
    let admin = Admin::connect(&ClusterDir::new(args.dir.path())).await?;
    let nodes = nodes(&admin, args.node.as_deref()).await?;
    let asks = nodes.into_iter().map(async |node| {
        let told = of_node(&admin, &node).await;
        (node, told)
    });
    let mut told = futures_util::stream::iter(asks).buffered(AT_A_TIME);
    let (mut silent, mut values) = (Vec::new(), Vec::new());
    let mut is_first = true;
    while let Some((node, actors)) = told.next().await {
        let actors = match actors {
            Ok(actors) => actors,
            Err(error) => {
                values.push(json!({ "node": node, "answers": false }));
                silent.push((node, error));
                continue;
            }
        };
        if args.output.is_some() {
            let actors: Vec<_> = actors.iter().map(value).collect();
            values.push(json!({ "node": node, "answers": true, "actors": actors }));
        } else {
            if !std::mem::take(&mut is_first) {
                say!("");
            }
            say!("{}", table(&node, &actors).trim_end());
        }
    }
    if args.output == Some(Structured::Json) {
        say!("{:#}", json!({ "nodes": values }));
    }
    if silent.is_empty() { Ok(()) } else { Err(ActorsError::Silent(silent)) }
}

/// The nodes to ask, whose addresses are known then: those of this folder without asking anybody, and those that joined.
async fn nodes(admin: &Admin, wanted: Option<&str>) -> Result<BTreeSet<NodeName>, ActorsError> {
    let own = admin.nodes.iter().map(|node| NodeName::from(node.name.as_str()));
    let mut nodes: BTreeSet<NodeName> = own.collect();
    let Some(wanted) = wanted else {
        nodes.extend(admin.client.learn_nodes().await?);
        return Ok(nodes);
    };
    let wanted = NodeName::from(wanted);
    if !nodes.contains(&wanted) && !admin.client.learn_nodes().await?.contains(&wanted) {
        return Err(ActorsError::NoNode(wanted.to_string()));
    }
    Ok(BTreeSet::from([wanted]))
}

/// All actors of a node, page by page.
async fn of_node(admin: &Admin, node: &NodeName) -> Result<Vec<Actor>, AskError> {
    let told = admin.client.actor::<ActorsRole>(ActorPath::new(node.clone(), ACTORS));
    let mut actors: Vec<Actor> = Vec::new();
    for _ in 0..PAGES {
        let after = actors.last().map(|actor| actor.name.clone());
        let page = told.ask(List { after, most: PAGE }, PAGE_LIMIT).await?;
        let is_last = !page.more || page.actors.is_empty();
        actors.extend(page.actors);
        if is_last {
            break;
        }
    }
    Ok(actors)
}

fn value(actor: &Actor) -> Value {
    let mailbox = actor.mailbox.map(|mailbox| {
        let Mailbox { messages, bytes, limit_messages, limit_bytes } = mailbox;
        json!({
            "messages": messages, "bytes": bytes,
            "limitMessages": limit_messages, "limitBytes": limit_bytes,
        })
    });
    json!({
        "name": actor.name, "role": actor.role, "restarts": actor.restarts,
        "upMillis": actor.up_millis, "mailbox": mailbox,
    })
}

const HEADS: [&str; 7] = ["NODE", "ACTOR", "ROLE", "MESSAGES", "BYTES", "RESTARTS", "UP"];

fn table(node: &NodeName, actors: &[Actor]) -> String {
    let rows = actors.iter().map(|actor| {
        let (messages, bytes) = match &actor.mailbox {
            Some(one) => (
                format!("{}/{}", one.messages, one.limit_messages),
                format!("{}/{}", size(one.bytes), size(one.limit_bytes)),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let up = i64::try_from(actor.up_millis / 1000).unwrap_or(i64::MAX);
        let restarts = actor.restarts.to_string();
        let name = actor.name.clone();
        [node.to_string(), name, actor.role.clone(), messages, bytes, restarts, human_duration(up)]
    });
    let rows: Vec<_> = std::iter::once(HEADS.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; HEADS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// Bytes in the largest unit of which there is at least one.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => bytes.to_string(),
        1024..1_048_576 => format!("{}Ki", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{}Mi", bytes >> 20),
        _ => format!("{}Gi", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_actor_with_what_waits_and_what_may() {
        let actor = |name: &str, mailbox| Actor {
            name: name.into(),
            role: "pod".into(),
            restarts: 2,
            up_millis: 61_000,
            mailbox,
        };
        let mailbox =
            Mailbox { messages: 3, bytes: 2048, limit_messages: 64, limit_bytes: 16 << 20 };
        let text = table(&"n1".into(), &[actor("pod/a", Some(mailbox)), actor("b", None)]);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let lines: Vec<Vec<&str>> = lines;
        assert_eq!(lines[0], HEADS);
        assert_eq!(lines[1], ["n1", "pod/a", "pod", "3/64", "2Ki/16Mi", "2", "61s"]);
        assert_eq!(lines[2], ["n1", "b", "pod", "-", "-", "2", "61s"]);
    }
}
