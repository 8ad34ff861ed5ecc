//! Lease: who holds something, and until when.

use crate::cause::Cause;
use crate::field::{Causes, Path, has, number, text};
use crate::resource::{Column, Effect, Resource, Rules};
use crate::table::{age, name};
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        columns: vec![
            Column::name(),
            Column::text("Holder", "Who holds the lease."),
            Column::age(),
        ],
        cells: Arc::new(|lease, now| {
            vec![name(lease), text(lease, "spec.holderIdentity").into(), age(lease, now)]
        }),
        put_creates: true,
        effect: Effect::by("clients, which hold it"),
        rules: Rules {
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "coordination.k8s.io",
            "v1",
            "Lease",
            "leases",
            "lease",
            "api.coordination.v1.Lease",
        )
    }
}

fn validate(lease: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let spec = Path::new("spec");
    if let Some(seconds) = number(lease, "spec.leaseDurationSeconds").filter(|s| *s <= 0) {
        causes.invalid(&spec.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    if let Some(count) = number(lease, "spec.leaseTransitions").filter(|count| *count < 0) {
        causes.invalid(
            &spec.child("leaseTransitions"),
            count,
            "must be greater than or equal to 0",
        );
    }
    if has(lease, "spec.preferredHolder") && !has(lease, "spec.strategy") {
        causes.forbidden(
            &spec.child("preferredHolder"),
            "may only be specified if `strategy` is defined",
        );
    }
    causes.into_vec()
}
