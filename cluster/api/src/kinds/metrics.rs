//! NodeMetrics and PodMetrics: what is used, as it was measured last. Nothing of them is kept.

use crate::resource::{Resource, Row, Verb};
use std::sync::{Arc, LazyLock};

/// The group of what is used of resources.
pub const METRICS: &str = "metrics.k8s.io";

static ROWS: LazyLock<[Row; 2]> = LazyLock::new(|| {
    [
        Resource {
            namespaced: false,
            ..Resource::named(
                METRICS,
                "v1beta1",
                "NodeMetrics",
                "nodes",
                "",
                "metrics.pkg.apis.metrics.v1beta1.NodeMetrics",
            )
        },
        Resource::named(
            METRICS,
            "v1beta1",
            "PodMetrics",
            "pods",
            "",
            "metrics.pkg.apis.metrics.v1beta1.PodMetrics",
        ),
    ]
    .map(|row| Arc::new(Resource { verbs: &[Verb::Get, Verb::List], is_kept: false, ..row }))
});

/// The rows, in the order in which discovery lists them.
pub fn resources() -> &'static [Row] {
    &*ROWS
}
