//! Pod templates, as controllers carry them.

use crate::field::{Causes, Path, get, object_mut};
use crate::rules::metadata;
use crate::rules::pod::{self, defaults};
use serde_json::Value;

/// Fills in what a template leaves out. Unlike in a pod, requests are not derived from limits.
pub fn default_template(template: &mut Value) {
    object_mut(template, "metadata");
    defaults::default_spec(object_mut(template, "spec"));
}

/// A template must be able to become a pod.
pub fn validate_template(template: &Value, path: &Path, causes: &mut Causes) {
    let meta = get(template, "metadata");
    metadata::labels(meta, "labels", &path.child("labels"), causes);
    metadata::annotations(meta, &path.child("annotations"), causes);
    let spec_path = path.child("spec");
    pod::validate_spec(get(template, "spec"), &spec_path, causes);
    if !crate::field::list(template, "spec.ephemeralContainers").is_empty() {
        causes.forbidden(
            &spec_path.child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}
