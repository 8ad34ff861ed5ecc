//! `imp explain pod`: what each node is to a pod that waits for one, as its scheduler sees it now.

use crate::admin::{Admin, AdminError};
use crate::cli::Explain;
use crate::layout::ClusterDir;
use crate::output::say;
use crate::structured::Structured;
use impresario_client::protocol::scheduler::{
    Examination, Examine, NotWaiting, SchedulerRole, actor_name,
};
use impresario_runtime::AskError;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;
use thiserror::Error;

/// How long the scheduler has to look at all nodes.
const LIMIT: Duration = Duration::from_secs(10);

/// Why nothing is explained.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// There is no way in.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The scheduler does not tell.
    #[error("the scheduler {0} does not tell: {1}")]
    Silent(String, AskError),
    /// The pod does not wait for it.
    #[error(transparent)]
    NotWaiting(#[from] NotWaiting),
}

/// Prints it.
pub async fn print(args: &Explain) -> Result<(), ExplainError> {
    let admin = Admin::connect(&ClusterDir::new(args.target.dir.path())).await?;
    let examine = Examine { namespace: args.target.namespace.clone(), pod: args.name.clone() };
    let actor = actor_name(&args.scheduler);
    let answer = admin.client.ask_member::<SchedulerRole, _>(&actor, examine, LIMIT).await;
    let (_, told) = answer.map_err(|error| ExplainError::Silent(args.scheduler.clone(), error))?;
    let told = told?;
    match args.output {
        Some(Structured::Json) => say!("{:#}", value(&args.target.namespace, &args.name, &told)),
        None => say!("{}", text(&args.target.namespace, &args.name, &told).trim_end()),
    }
    Ok(())
}

fn value(namespace: &str, pod: &str, told: &Examination) -> Value {
    let unfit = told.unfit.iter();
    let unfit: Vec<_> =
        unfit.map(|node| json!({ "node": node.node, "reasons": node.reasons })).collect();
    let best = told.best.iter().map(|node| {
        let parts: serde_json::Map<_, _> =
            node.parts.iter().map(|(name, points)| (name.clone(), json!(points))).collect();
        json!({ "node": node.node, "score": node.score, "parts": parts })
    });
    let best: Vec<_> = best.collect();
    json!({
        "namespace": namespace, "pod": pod, "attempts": told.attempts, "message": told.message,
        "nominatedNode": told.nominated, "nodes": told.nodes, "fitting": told.fitting,
        "best": best, "unfit": unfit,
    })
}

/// For people: nodes that are ruled out for the same reasons stand together.
fn text(namespace: &str, pod: &str, told: &Examination) -> String {
    let mut text = format!(
        "Pod {namespace}/{pod} asks for {}; a node was looked for {} times.\n",
        told.requests, told.attempts
    );
    if !told.message.is_empty() {
        let _ = writeln!(text, "Last answer: {}", told.message);
    }
    if let Some(node) = &told.nominated {
        let _ = writeln!(text, "Other pods are leaving node {node} for it.");
    }
    let _ = writeln!(text, "It may go to {} of {} nodes now.", told.fitting, told.nodes);
    for node in &told.best {
        let parts: Vec<_> =
            node.parts.iter().map(|(name, points)| format!("{name} {points}")).collect();
        let _ = writeln!(text, "  {}: score {} ({})", node.node, node.score, parts.join(", "));
    }
    let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for node in &told.unfit {
        alike.entry(node.reasons.join("; ")).or_default().push(&node.node);
    }
    if !alike.is_empty() {
        text += "It may not go to:\n";
    }
    for (reasons, nodes) in alike {
        let _ = writeln!(text, "  {}: {reasons}", nodes.join(", "));
    }
    let left_out = told.nodes - told.fitting - told.unfit.len() as u64;
    if left_out > 0 {
        let _ = writeln!(text, "  and {left_out} more nodes");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_client::protocol::resources::Resources;
    use impresario_client::protocol::scheduler::{ScoredNode, UnfitNode};

    fn told() -> Examination {
        let unfit = |node: &str, reason: &str| UnfitNode {
            node: node.into(),
            reasons: vec![reason.into()],
        };
        Examination {
            requests: Resources { cpu_milli: 500, pods: 1, ..Resources::default() },
            attempts: 3,
            message: "0/4 nodes are available: 3 Insufficient cpu.".into(),
            nominated: Some("n1".into()),
            nodes: 5,
            unfit: vec![
                unfit("n1", "Insufficient cpu"),
                unfit("n2", "node(s) were unschedulable"),
                unfit("n3", "Insufficient cpu"),
            ],
            best: vec![ScoredNode {
                node: "n4".into(),
                score: 12,
                parts: vec![("least-allocated".into(), 2), ("NodeAffinity".into(), 10)],
            }],
            fitting: 1,
        }
    }

    #[test]
    fn nodes_that_are_ruled_out_alike_stand_together_and_scores_say_whose_they_are() {
        let text = text("ns", "p", &told());
        for line in [
            "It may go to 1 of 5 nodes now.",
            "Other pods are leaving node n1 for it.",
            "  n4: score 12 (least-allocated 2, NodeAffinity 10)",
            "  n1, n3: Insufficient cpu",
            "  n2: node(s) were unschedulable",
            "  and 1 more nodes",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn programs_read_the_same() {
        let value = value("ns", "p", &told());
        assert_eq!(value["best"][0]["parts"]["NodeAffinity"], 10);
        assert_eq!(value["unfit"][1]["reasons"][0], "node(s) were unschedulable");
        assert_eq!((&value["nominatedNode"], &value["fitting"]), (&json!("n1"), &json!(1)));
    }
}
