//! `imp status`: nodes, control members, the leader, the revision, and what was refused or lost between them.

use crate::admin::{Admin, AdminError};
use crate::cli::Status;
use crate::layout::{ClusterDir, LayoutError};
use crate::output::say;
use crate::structured::Structured;
use futures_util::future::join;
use impresario_api::catalog::find;
use impresario_client::protocol::traffic::Traffic;
use impresario_objects::ListQuery;
use impresario_runtime::NodeName;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt::Write as _;
use thiserror::Error;

/// Why the status is not known.
#[derive(Debug, Error)]
pub enum StatusError {
    /// There is no way in.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A file of the cluster is unusable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The nodes cannot be read.
    #[error(transparent)]
    Read(#[from] impresario_api::status::Status),
    /// The API of this build has none.
    #[error("this build serves no nodes: use the `imp` that the cluster was started with")]
    NotServed,
}

/// Prints the status.
pub async fn status(args: &Status) -> Result<(), StatusError> {
    let dir = ClusterDir::new(args.dir.path());
    let admin = Admin::connect(&dir).await?;
    let running: Vec<NodeName> = admin
        .nodes
        .iter()
        .filter(|node| dir.node(&node.name).is_running())
        .map(|node| NodeName::from(node.name.as_str()))
        .collect();
    let (members, traffic) = join(admin.members(), admin.traffic(&running)).await;
    let nodes = find("", "v1", "nodes").ok_or(StatusError::NotServed)?;
    // Any member's picture will do: without a leader there is no newer one.
    let any = ListQuery { version: Some(0), ..ListQuery::default() };
    let listed = admin.client.objects().list(&nodes, &any).await;
    let objects: Vec<Value> =
        listed.as_ref().map(|listed| listed.items.clone()).unwrap_or_default();
    let answered = || members.iter().filter_map(|(_, status)| status.as_ref());
    let leader = answered().max_by_key(|s| s.term).and_then(|s| s.leader.clone());
    let revision = answered().map(|status| status.revision).max();
    let groups = hollow(&dir, &objects)?;
    let nodes: Vec<Value> = admin
        .nodes
        .iter()
        .map(|node| {
            let object = objects.iter().find(|object| object["metadata"]["name"] == *node.name);
            json!({
                "name": node.name,
                "address": node.advertise.to_string(),
                "control": node.control.is_some(),
                "running": dir.node(&node.name).is_running(),
                "pid": dir.node(&node.name).pid(),
                "ready": object.is_some_and(is_ready),
            })
        })
        .chain(objects.iter().filter_map(|object| {
            let name = object["metadata"]["name"].as_str()?;
            // Hollow ones are many, and told of by their processes. Who they are is known from their files: a label
            // can be on any node.
            let is_hollow = groups.iter().any(|group| group.nodes.contains(name));
            let joined = !is_hollow && admin.nodes.iter().all(|node| node.name != name);
            joined.then(|| {
                let address = &object["metadata"]["annotations"]["impresario.dev/quic-address"];
                json!({ "name": name, "address": address, "control": false, "ready": is_ready(object) })
            })
        }))
        .collect();
    let control: Vec<Value> = members
        .iter()
        .map(|(name, status)| match status {
            Some(status) => json!({
                "name": name, "answers": true, "term": status.term, "revision": status.revision,
                "voters": status.voters, "learners": status.learners, "failure": status.failure,
            }),
            None => json!({ "name": name, "answers": false }),
        })
        .collect();
    let value = json!({
        "leader": leader, "revision": revision, "nodes": nodes, "members": control,
        "hollow": groups.iter().map(of_group).collect::<Vec<_>>(),
        "kubeconfig": dir.kubeconfig(), "traffic": traffic.iter().map(of_traffic).collect::<Vec<_>>(),
    });
    match args.output {
        Some(Structured::Json) => say!("{value:#}"),
        None => say!("{}", text(&value).trim_end()),
    }
    listed?;
    Ok(())
}

/// A group of nodes that pretend.
struct Group {
    name: String,
    nodes: HashSet<String>,
    ready: usize,
    running: bool,
    pid: Option<i32>,
}

/// The groups of nodes that pretend, and how many of each are Ready.
fn hollow(dir: &ClusterDir, objects: &[Value]) -> Result<Vec<Group>, LayoutError> {
    let ready = objects.iter().filter(|object| is_ready(object));
    let ready: HashSet<_> = ready.filter_map(|o| o["metadata"]["name"].as_str()).collect();
    let mut groups = Vec::new();
    for group in dir.hollow()? {
        let nodes: HashSet<_> = group.load()?.nodes.into_iter().map(|node| node.name).collect();
        let process = group.process();
        groups.push(Group {
            name: group.name(),
            ready: nodes.iter().filter(|name| ready.contains(name.as_str())).count(),
            nodes,
            running: process.is_running(),
            pid: process.pid(),
        });
    }
    Ok(groups)
}

fn of_group(group: &Group) -> Value {
    json!({
        "group": group.name, "running": group.running, "pid": group.pid,
        "nodes": group.nodes.len(), "ready": group.ready,
    })
}

/// The network end of a node.
fn of_traffic((node, traffic): &(NodeName, Option<Traffic>)) -> Value {
    let Some(traffic) = traffic else { return json!({ "node": node, "answers": false }) };
    json!({
        "node": node, "answers": true, "refused": traffic.refused, "peers": traffic.peers,
        "peersInAll": traffic.peers_in_all, "heldBytes": traffic.held_bytes,
    })
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn text(value: &Value) -> String {
    let mut text = String::new();
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "leader    {}", word(&value["leader"]));
    let _ = writeln!(text, "revision  {}", word(&value["revision"]));
    for node in value["nodes"].as_array().into_iter().flatten() {
        let flag = |key: &str, yes: &'static str, no: &'static str| {
            if node[key] == true { yes } else { no }
        };
        let _ = writeln!(
            text,
            "{:<12} {:<9} {:<8} {}",
            word(&node["name"]),
            flag("ready", "Ready", "NotReady"),
            flag("control", "control", ""),
            word(&node["address"]),
        );
    }
    for group in value["hollow"].as_array().into_iter().flatten() {
        let (name, ready, nodes) = (word(&group["group"]), &group["ready"], &group["nodes"]);
        let stopped = if group["running"] == true { "" } else { ", not running" };
        let _ = writeln!(text, "hollow    {name}: {ready} of {nodes} nodes Ready{stopped}");
    }
    for member in value["members"].as_array().into_iter().flatten() {
        if member["answers"] == false {
            let _ = writeln!(text, "control member {} does not answer", word(&member["name"]));
        } else if !member["failure"].is_null() {
            let _ = writeln!(
                text,
                "control member {} has failed: {}",
                word(&member["name"]),
                word(&member["failure"])
            );
        }
    }
    for end in value["traffic"].as_array().into_iter().flatten() {
        for one in end["refused"].as_array().into_iter().flatten() {
            let (role, message) = (word(&one["role"]), word(&one["message"]));
            let (node, cause) = (word(&end["node"]), word(&one["cause"]));
            let count = &one["count"];
            let _ = writeln!(text, "refused   {count} x at {node}: {message} of a {role}: {cause}");
        }
    }
    text
}
