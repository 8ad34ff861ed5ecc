//! Pod: containers that live and die together on one node.

use crate::resource::{
    Column, DeletionRule, Effect, FieldLabel, Resource, Rules, Subresource, Verb, words,
};
use crate::rules::pod;
use crate::table;
use std::sync::Arc;

/// What is done in a pod is asked for with a POST, or with the GET of a WebSocket; the right to it is that to create.
const IN_IT: &[Verb] = &[Verb::Create, Verb::Get];

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["po"]),
        categories: words(["all"]),
        subresources: vec![
            Subresource::own("binding", &[Verb::Create], "Binding"),
            Subresource {
                group: "policy",
                version: "v1",
                ..Subresource::own("eviction", &[Verb::Create], "Eviction")
            },
            Subresource::own("log", &[Verb::Get], "Pod"),
            Subresource::own("exec", IN_IT, "PodExecOptions"),
            Subresource::own("attach", IN_IT, "PodAttachOptions"),
            Subresource::own("portforward", IN_IT, "PodPortForwardOptions"),
            Subresource::status("Pod"),
        ],
        columns: vec![
            Column::name(),
            Column::text("Ready", "How many containers are ready, of how many."),
            Column::text("Status", "What the containers say together."),
            Column::text("Restarts", "How often containers were started again."),
            Column::age(),
            Column::text("IP", "The pod's address.").wide(),
            Column::text("Node", "The node it is bound to.").wide(),
            Column::text("Nominated Node", "The node that makes room for it.").wide(),
            Column::text("Readiness Gates", "How many of its further conditions hold.").wide(),
        ],
        cells: Arc::new(table::pod::cells),
        row_conditions: Some(table::pod::row_conditions),
        generation: true,
        effect: Effect::by("the scheduler and the node that it is bound to"),
        rules: Rules {
            default: Arc::new(pod::default_pod),
            prepare_create: Arc::new(pod::prepare_create),
            prepare_update: Arc::new(pod::prepare_update),
            validate: Arc::new(pod::validate_create),
            validate_update: Arc::new(pod::validate_update),
            validate_status: Arc::new(pod::validate_status),
            ..Rules::plain()
        },
        fields: vec![
            FieldLabel::new("spec.nodeName", "/spec/nodeName"),
            FieldLabel::new("spec.restartPolicy", "/spec/restartPolicy"),
            FieldLabel::new("spec.schedulerName", "/spec/schedulerName"),
            FieldLabel::new("spec.serviceAccountName", "/spec/serviceAccountName"),
            FieldLabel {
                absent: "false".into(),
                ..FieldLabel::new("spec.hostNetwork", "/spec/hostNetwork")
            },
            FieldLabel::new("status.phase", "/status/phase"),
            FieldLabel::new("status.podIP", "/status/podIP"),
            FieldLabel::new("status.podIPs", "/status/podIP"),
            FieldLabel::new("status.nominatedNodeName", "/status/nominatedNodeName"),
        ],
        status_keeps: &["ownerReferences"],
        deletion: DeletionRule { grace: pod::grace, ..DeletionRule::ANSWERS_OBJECT },
        ..Resource::named("", "v1", "Pod", "pods", "pod", "api.core.v1.Pod")
    }
}
