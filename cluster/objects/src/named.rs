//! What a pod names, by its text alone: whoever runs it has to read that.

use serde_json::Value;

/// The resources that nodes may read because a pod names them.
const NAMED: [&str; 4] = ["secrets", "configmaps", "persistentvolumeclaims", "serviceaccounts"];

/// The resource of this name, if it is one that nodes may read because a pod names it.
pub(crate) fn named_resource(resource: &str) -> Option<&'static str> {
    NAMED.into_iter().find(|named| *named == resource)
}

/// What a pod names, each with its resource, in the pod's own namespace.
pub(crate) fn named_by(pod: &Value) -> Vec<(&'static str, String)> {
    let mut names = Vec::new();
    let mut add = |resource: &'static str, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            names.push((resource, name.to_owned()));
        }
    };
    let spec = &pod["spec"];
    add("serviceaccounts", &spec["serviceAccountName"]);
    for secret in list(&spec["imagePullSecrets"]) {
        add("secrets", &secret["name"]);
    }
    for volume in list(&spec["volumes"]) {
        add("secrets", &volume["secret"]["secretName"]);
        add("configmaps", &volume["configMap"]["name"]);
        add("persistentvolumeclaims", &volume["persistentVolumeClaim"]["claimName"]);
        add("secrets", &volume["csi"]["nodePublishSecretRef"]["name"]);
        for source in list(&volume["projected"]["sources"]) {
            add("secrets", &source["secret"]["name"]);
            add("configmaps", &source["configMap"]["name"]);
        }
        if !volume["ephemeral"].is_null()
            && let (Some(pod), Some(volume)) =
                (pod["metadata"]["name"].as_str(), volume["name"].as_str())
        {
            add("persistentvolumeclaims", &format!("{pod}-{volume}").into());
        }
    }
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(&spec[kind]) {
            for from in list(&container["envFrom"]) {
                add("secrets", &from["secretRef"]["name"]);
                add("configmaps", &from["configMapRef"]["name"]);
            }
            for variable in list(&container["env"]) {
                add("secrets", &variable["valueFrom"]["secretKeyRef"]["name"]);
                add("configmaps", &variable["valueFrom"]["configMapKeyRef"]["name"]);
            }
        }
    }
    names
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
