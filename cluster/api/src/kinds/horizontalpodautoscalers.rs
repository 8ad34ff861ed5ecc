//! HorizontalPodAutoscaler: between how many and how many pods something has, and what decides.

use crate::resource::{Column, Conversion, Effect, Resource, Rules, Subresource, words};
use crate::rules::autoscaling;
use std::sync::Arc;

/// The row of the version that is kept, and the row of the older one.
pub fn resources() -> [Resource; 2] {
    let kept = resource();
    let mut older = resource();
    older.version = "v1".into();
    older.schema = crate::dynamic::Schema::table("api.autoscaling.v1.HorizontalPodAutoscaler");
    older.cells = Arc::new(|object, now| {
        autoscaling::cells(&autoscaling::v1::to_stored(object.clone()), now)
    });
    older.conversion = Some(Conversion {
        group: "autoscaling",
        version: "v2",
        plural: "horizontalpodautoscalers",
        validate_create: |_| Vec::new(),
        to_stored: autoscaling::v1::to_stored,
        from_stored: autoscaling::v1::from_stored,
    });
    [kept, older]
}

fn resource() -> Resource {
    Resource {
        short_names: words(["hpa"]),
        categories: words(["all"]),
        subresources: vec![Subresource::status("HorizontalPodAutoscaler")],
        columns: vec![
            Column::name(),
            Column::text("Reference", "What it scales."),
            Column::text("Targets", "What is measured, and what that should be."),
            Column::text("MinPods", "How many pods there are at least."),
            Column::text("MaxPods", "How many there are at most."),
            Column::text("Replicas", "How many there are."),
            Column::age(),
        ],
        cells: Arc::new(autoscaling::cells),
        effect: Effect::by("its controller, which scales its target by what its pods use"),
        rules: Rules {
            default: Arc::new(autoscaling::default_autoscaler),
            prepare_create: Arc::new(autoscaling::prepare_create),
            validate: Arc::new(autoscaling::validate),
            validate_update: Arc::new(|new, _| autoscaling::validate(new)),
            validate_status: Arc::new(|new, _| autoscaling::validate_status(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            "horizontalpodautoscaler",
            "api.autoscaling.v2.HorizontalPodAutoscaler",
        )
    }
}
