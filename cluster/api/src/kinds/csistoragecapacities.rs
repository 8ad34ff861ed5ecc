//! CSIStorageCapacity: how much room there is for volumes of a class, and where.

use crate::cause::Cause;
use crate::field::{Causes, Path, at, get, text};
use crate::names;
use crate::quantity;
use crate::resource::{Column, Resource, Rules};
use crate::rules::pod::label_selector;
use crate::table::name;
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        columns: vec![
            Column::name(),
            Column { kind: "date".into(), ..Column::text("Created At", "When it was created.") },
        ],
        cells: Arc::new(|room, _| {
            vec![name(room), text(room, "metadata.creationTimestamp").into()]
        }),
        rules: Rules {
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, old| {
                let mut causes = Causes::default();
                causes.append(validate(new));
                for field in ["nodeTopology", "storageClassName"] {
                    causes.unchanged(&Path::new(field), get(new, field), at(old, field));
                }
                causes.into_vec()
            }),
            ..Rules::plain()
        },
        ..Resource::named(
            "storage.k8s.io",
            "v1",
            "CSIStorageCapacity",
            "csistoragecapacities",
            "csistoragecapacity",
            "api.storage.v1.CSIStorageCapacity",
        )
    }
}

fn validate(room: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    label_selector(get(room, "nodeTopology"), &Path::new("nodeTopology"), &mut causes);
    let class = text(room, "storageClassName");
    causes.invalid_all(&Path::new("storageClassName"), class, names::dns_subdomain(class));
    for field in ["capacity", "maximumVolumeSize"] {
        if let Some(amount) = quantity::parse(get(room, field)).filter(|it| it.sign() < 0) {
            let why = "must be greater than or equal to 0";
            causes.invalid(&Path::new(field), amount.to_string(), why);
        }
    }
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn room_is_of_a_class_and_of_a_place_that_stay() {
        let told = |causes: Vec<Cause>| {
            causes.into_iter().map(|it| it.field).collect::<Vec<_>>().join(" ")
        };
        let room = json!({"storageClassName": "fast", "capacity": "1Gi"});
        assert_eq!(told(validate(&room)), "");
        assert_eq!(told(validate(&json!({"capacity": "-1"}))), "storageClassName capacity");
        let update = resource().rules.validate_update;
        assert_eq!(told(update(&json!({"storageClassName": "slow"}), &room)), "storageClassName");
        assert_eq!(told(update(&json!({"storageClassName": "fast"}), &room)), "");
    }
}
