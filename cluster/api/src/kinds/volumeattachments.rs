//! VolumeAttachment: that a volume is to be attached to a node.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, at, flag, get, has, text};
use crate::kinds::persistentvolumes::validate_spec;
use crate::names;
use crate::resource::{Column, Resource, Rules, Subresource};
use crate::rules::{declared, storage};
use crate::status::Status;
use crate::table::{age, name};
use serde_json::{Value, json};
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        subresources: vec![Subresource::status("VolumeAttachment")],
        columns: vec![
            Column::name(),
            Column { format: "name".into(), ..Column::text("Attacher", "Who attaches it.") },
            Column::text("PV", "Which volume."),
            Column::text("Node", "To which node."),
            Column { kind: "boolean".into(), ..Column::text("Attached", "Whether it is.") },
            Column::age(),
        ],
        cells: Arc::new(|attachment, now| {
            vec![
                name(attachment),
                text(attachment, "spec.attacher").into(),
                text(attachment, "spec.source.persistentVolumeName").into(),
                text(attachment, "spec.nodeName").into(),
                flag(attachment, "status.attached").into(),
                age(attachment, now),
            ]
        }),
        rules: Rules {
            default: Arc::new(|attachment| {
                crate::field::default(
                    crate::field::object_mut(attachment, "status"),
                    "attached",
                    false,
                );
            }),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, old| {
                let mut causes = Causes::default();
                causes.append(validate(new));
                causes.unchanged(&Path::new("spec"), get(new, "spec"), at(old, "spec"));
                causes.into_vec()
            }),
            ..Rules::plain()
        },
        ..Resource::named(
            "storage.k8s.io",
            "v1",
            "VolumeAttachment",
            "volumeattachments",
            "volumeattachment",
            "api.storage.v1.VolumeAttachment",
        )
    }
}

fn prepare_create(attachment: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    crate::field::set(attachment, "status", json!({"attached": false}));
    Ok(())
}

fn validate(attachment: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(attachment, "spec"), Path::new("spec"));
    let attacher = text(spec, "attacher");
    if !attacher.is_empty() {
        storage::driver_name(attacher, &path.child("attacher"), &mut causes);
    }
    let (source, source_path) = (get(spec, "source"), path.child("source"));
    let volume = text(source, "persistentVolumeName");
    match (volume.is_empty(), has(source, "inlineVolumeSpec")) {
        (true, false) if has(spec, "source") => {
            let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            causes.required(&source_path, why);
        }
        (false, true) => {
            let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            causes.forbidden(&source_path, why);
        }
        (false, false) => {
            let wrong = names::dns_subdomain(volume);
            causes.invalid_all(&source_path.child("persistentVolumeName"), volume, wrong);
        }
        (true, true) => {
            let path = source_path.child("inlineVolumeSpec");
            validate_spec(get(source, "inlineVolumeSpec"), &path, &mut causes);
        }
        (true, false) => {}
    }
    let node = text(spec, "nodeName");
    if !node.is_empty() {
        causes.invalid_all(&path.child("nodeName"), node, names::dns_subdomain(node));
    }
    declared::validate("api.storage.v1.VolumeAttachment", attachment, &mut causes);
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_names_its_volume_once_and_stays() {
        let attachment =
            |source: Value| json!({"spec": {"attacher": "a", "nodeName": "n", "source": source}});
        let told = |causes: Vec<Cause>| {
            causes.into_iter().map(|it| it.field).collect::<Vec<_>>().join(" ")
        };
        let rows = [
            (json!({"persistentVolumeName": "v"}), ""),
            (json!({}), "spec.source"),
            (Value::Null, "spec.source"),
            (json!({"persistentVolumeName": "A"}), "spec.source.persistentVolumeName"),
            (json!({"persistentVolumeName": "v", "inlineVolumeSpec": {}}), "spec.source"),
        ];
        for (source, expected) in rows {
            assert_eq!(told(validate(&attachment(source.clone()))), expected, "{source}");
        }
        let causes = told(validate(&attachment(
            json!({"inlineVolumeSpec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1"}}}),
        )));
        assert_eq!(causes, "spec.source.inlineVolumeSpec");
        let update = resource().rules.validate_update;
        let (one, other) = (
            attachment(json!({"persistentVolumeName": "v"})),
            attachment(json!({"persistentVolumeName": "w"})),
        );
        assert_eq!(told(update(&one, &other)), "spec");
        assert_eq!(told(validate(&json!({}))), "spec.attacher spec.source spec.nodeName");
    }
}
