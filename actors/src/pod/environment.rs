//! What a container finds in its environment, and its command line. No IO: the config maps,
//! secrets and services that it may need are given.
//!
//! Later entries win and may refer to earlier ones as `$(NAME)`; service variables come first, then
//! `envFrom` in its order, then `env`, as in Kubernetes.

use crate::{requests, withheld_ports};
use impresario_host::container::expand;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Pod, Secret, Service},
};
use std::collections::BTreeMap;
use thiserror::Error;

/// What the variables of a pod's containers are made from.
#[derive(Debug, Default)]
pub struct Sources {
    /// Config maps of the pod's namespace by name; only those that it names.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets likewise.
    pub secrets: BTreeMap<String, Secret>,
    /// Services of the pod's namespace, and `default/kubernetes`.
    pub services: Vec<Service>,
    /// Variables that the runtime itself adds; a container's own win.
    pub given: Vec<(String, String)>,
}

/// Why a container cannot be configured. It is tried again: the missing object may come.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// No such config map or secret.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It is there and lacks the key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field that cannot be had this way.
    #[error("env {variable}: field {path} is not supported")]
    Field {
        /// The variable.
        variable: String,
        /// The path.
        path: String,
    },
}

/// What of the pod and its node a variable may name besides the object.
#[derive(Debug, Clone, Default)]
pub struct Here {
    /// The pod's address.
    pub pod_ip: Option<String>,
    /// The node's address.
    pub host_ip: Option<String>,
    /// What the node has to give, for limits that are not set.
    pub allocatable: impresario_client::protocol::resources::Resources,
    /// The first port that the node may open: services of lower ones answer elsewhere.
    pub first_port: u16,
}

/// The environment of a container, in order, each name once.
pub fn environment(
    container: &Container,
    pod: &Pod,
    sources: &Sources,
    here: &Here,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env = Env::default();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    for (name, value) in service_variables(&sources.services, links, here.first_port) {
        env.set(name, value);
    }
    for (name, value) in &sources.given {
        env.set(name.clone(), value.clone());
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(wanted) = &from.config_map_ref {
            match sources.config_maps.get(&wanted.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        env.set(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if wanted.optional == Some(true) => {}
                None => return Err(missing("configmap", &wanted.name)),
            }
        }
        if let Some(wanted) = &from.secret_ref {
            match sources.secrets.get(&wanted.name) {
                Some(secret) => {
                    for (key, ByteString(value)) in secret.data.iter().flatten() {
                        env.set(
                            format!("{prefix}{key}"),
                            String::from_utf8_lossy(value).into_owned(),
                        );
                    }
                }
                None if wanted.optional == Some(true) => {}
                None => return Err(missing("secret", &wanted.name)),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(variable, container, pod, namespace, sources, here, &env)? {
            env.set(variable.name.clone(), value);
        }
    }
    Ok(env.in_order)
}

/// A command or argument list with its references replaced.
pub fn expanded(words: Option<&Vec<String>>, env: &[(String, String)]) -> Vec<String> {
    let known: BTreeMap<_, _> = env.iter().cloned().collect();
    words.into_iter().flatten().map(|word| expand(word, &known)).collect()
}

#[derive(Default)]
struct Env {
    in_order: Vec<(String, String)>,
    known: BTreeMap<String, String>,
}

impl Env {
    fn set(&mut self, name: String, value: String) {
        if self.known.insert(name.clone(), value.clone()).is_some() {
            self.in_order.retain(|(earlier, _)| *earlier != name);
        }
        self.in_order.push((name, value));
    }
}

fn missing(kind: &'static str, name: &str) -> ConfigError {
    ConfigError::NotFound { kind, name: name.to_owned() }
}

/// `None` where the variable is optional and has no value.
fn value_of(
    variable: &EnvVar,
    container: &Container,
    pod: &Pod,
    namespace: &str,
    sources: &Sources,
    here: &Here,
    env: &Env,
) -> Result<Option<String>, ConfigError> {
    let Some(source) = &variable.value_from else {
        let value = variable.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(value, &env.known)));
    };
    let unsupported =
        |path: &str| ConfigError::Field { variable: variable.name.clone(), path: path.to_owned() };
    match source {
        EnvVarSource { field_ref: Some(field), .. } => field_of(&field.field_path, pod, here)
            .map(Some)
            .ok_or_else(|| unsupported(&field.field_path)),
        EnvVarSource { resource_field_ref: Some(field), .. } => {
            let specs = pod.spec.iter().flat_map(|spec| {
                spec.containers.iter().chain(spec.init_containers.iter().flatten())
            });
            let mut named = specs.filter(|spec| Some(&spec.name) == field.container_name.as_ref());
            let spec = named.next().unwrap_or(container);
            requests::field(spec, &field.resource, field.divisor.as_ref(), &here.allocatable)
                .map(|amount| Some(amount.to_string()))
                .ok_or_else(|| unsupported(&field.resource))
        }
        EnvVarSource { config_map_key_ref: Some(wanted), .. } => {
            let optional = wanted.optional == Some(true);
            let Some(map) = sources.config_maps.get(&wanted.name) else {
                return if optional { Ok(None) } else { Err(missing("configmap", &wanted.name)) };
            };
            match map.data.as_ref().and_then(|data| data.get(&wanted.key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(no_key("ConfigMap", namespace, &wanted.name, &wanted.key)),
            }
        }
        EnvVarSource { secret_key_ref: Some(wanted), .. } => {
            let optional = wanted.optional == Some(true);
            let Some(secret) = sources.secrets.get(&wanted.name) else {
                return if optional { Ok(None) } else { Err(missing("secret", &wanted.name)) };
            };
            match secret.data.as_ref().and_then(|data| data.get(&wanted.key)) {
                Some(ByteString(value)) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
                None if optional => Ok(None),
                None => Err(no_key("Secret", namespace, &wanted.name, &wanted.key)),
            }
        }
        _ => Err(unsupported("valueFrom")),
    }
}

fn no_key(kind: &'static str, namespace: &str, name: &str, key: &str) -> ConfigError {
    ConfigError::NoKey {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
    }
}

/// A field of the pod, as the downward API names it.
pub fn field_of(path: &str, pod: &Pod, here: &Here) -> Option<String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    // metadata.labels['key']
    let keyed = |map: &Option<BTreeMap<String, String>>, rest: &str| {
        let key = rest.strip_prefix("['")?.strip_suffix("']")?;
        Some(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default())
    };
    match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "spec.nodeName" => spec?.node_name.clone(),
        "spec.serviceAccountName" => Some(spec?.service_account_name.clone().unwrap_or_default()),
        "status.podIP" | "status.podIPs" => Some(here.pod_ip.clone().unwrap_or_default()),
        "status.hostIP" | "status.hostIPs" => Some(here.host_ip.clone().unwrap_or_default()),
        _ => {
            if let Some(rest) = path.strip_prefix("metadata.labels") {
                keyed(&meta.labels, rest)
            } else {
                keyed(&meta.annotations, path.strip_prefix("metadata.annotations")?)
            }
        }
    }
}

/// The variables by which services are found without DNS. `default/kubernetes` is always told,
/// the namespace's own services where the pod wants links. What they say leads to the service on this
/// node, so that a port that cannot be had here is told as the one that answers for it.
fn service_variables(services: &[Service], links: bool, first_port: u16) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for service in services {
        let (Some(name), Some(spec)) = (&service.metadata.name, &service.spec) else { continue };
        let is_api =
            name == "kubernetes" && service.metadata.namespace.as_deref() == Some("default");
        let address = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None");
        let (Some(address), Some(ports)) = (address, &spec.ports) else { continue };
        if !(links || is_api) {
            continue;
        }
        let prefix = variable_name(name);
        variables.push((format!("{prefix}_SERVICE_HOST"), address.to_owned()));
        let served = withheld_ports::served_at(ports, first_port);
        for (index, (port, served)) in ports.iter().zip(served).enumerate() {
            let number = served.map_or(port.port, i32::from);
            if index == 0 {
                variables.push((format!("{prefix}_SERVICE_PORT"), number.to_string()));
            }
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let port_name = variable_name(port_name);
                variables.push((format!("{prefix}_SERVICE_PORT_{port_name}"), number.to_string()));
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{address}:{number}", protocol.to_lowercase());
            if index == 0 {
                variables.push((format!("{prefix}_PORT"), url.clone()));
            }
            let stem = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            variables.push((stem.clone(), url));
            variables.push((format!("{stem}_PROTO"), protocol.to_lowercase()));
            variables.push((format!("{stem}_PORT"), number.to_string()));
            variables.push((format!("{stem}_ADDR"), address.to_owned()));
        }
    }
    variables
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(container: serde_json::Value) -> (Container, Pod) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app.kubernetes.io/x": "web"}},
            "spec": {"nodeName": "n1", "containers": [container]}
        }))
        .unwrap();
        (pod.spec.as_ref().unwrap().containers[0].clone(), pod)
    }

    fn variables(
        container: serde_json::Value,
        sources: &Sources,
    ) -> Result<Vec<(String, String)>, ConfigError> {
        let (container, pod) = pod(container);
        let here = Here { pod_ip: Some("127.1.0.2".into()), ..Here::default() };
        environment(&container, &pod, sources, &here)
    }

    fn sources() -> Sources {
        let map = json!({"metadata": {"name": "m"}, "data": {"k": "v"}});
        let secret = json!({"metadata": {"name": "s"}, "data": {"k": "aGlkZGVu"}});
        let service = json!({"metadata": {"name": "my-db", "namespace": "ns"},
            "spec": {"clusterIP": "127.96.0.9", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}});
        Sources {
            config_maps: [("m".to_owned(), serde_json::from_value(map).unwrap())].into(),
            secrets: [("s".to_owned(), serde_json::from_value(secret).unwrap())].into(),
            services: vec![serde_json::from_value(service).unwrap()],
            given: Vec::new(),
        }
    }

    #[test]
    fn variables_come_from_fields_maps_secrets_and_each_other() {
        let container = json!({"name": "c", "envFrom": [{"prefix": "M_", "configMapRef": {"name": "m"}}], "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(LATER)-$$(A)"},
            {"name": "LATER", "value": "x"},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app.kubernetes.io/x']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "O", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": true}}}
        ]});
        let found: BTreeMap<_, _> = variables(container, &sources()).unwrap().into_iter().collect();
        let table = [
            ("A", "1"),
            ("B", "1-$(LATER)-$(A)"),
            ("NAME", "p"),
            ("LABEL", "web"),
            ("IP", "127.1.0.2"),
            ("K", "v"),
            ("S", "hidden"),
            ("M_k", "v"),
            ("MY_DB_SERVICE_HOST", "127.96.0.9"),
            ("MY_DB_SERVICE_PORT_SQL", "5432"),
            ("MY_DB_PORT_5432_TCP", "tcp://127.96.0.9:5432"),
        ];
        for (name, value) in table {
            assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!found.contains_key("O"));
    }

    #[test]
    fn a_service_whose_port_the_node_may_not_open_is_told_where_it_answers() {
        let service = json!({"metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "127.96.0.1", "ports": [{"name": "https", "port": 443}]}});
        let services = vec![serde_json::from_value(service).unwrap()];
        let told: BTreeMap<_, _> = service_variables(&services, false, 1024).into_iter().collect();
        assert_eq!(told["KUBERNETES_SERVICE_PORT_HTTPS"], "8443");
        assert_eq!(told["KUBERNETES_PORT_443_TCP"], "tcp://127.96.0.1:8443");
        let told: BTreeMap<_, _> = service_variables(&services, false, 0).into_iter().collect();
        assert_eq!(told["KUBERNETES_SERVICE_PORT"], "443");
    }

    #[test]
    fn what_is_missing_is_named() {
        let table = [
            (json!({"configMapKeyRef": {"name": "x", "key": "k"}}), "configmap \"x\" not found"),
            (
                json!({"secretKeyRef": {"name": "s", "key": "x"}}),
                "couldn't find key x in Secret ns/s",
            ),
            (json!({"fieldRef": {"fieldPath": "spec.x"}}), "env V: field spec.x is not supported"),
        ];
        for (source, expected) in table {
            let container = json!({"name": "c", "env": [{"name": "V", "valueFrom": source}]});
            assert_eq!(variables(container, &sources()).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_repeated_name_has_its_last_value_once() {
        let container = json!({"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]});
        let found = variables(container, &Sources::default()).unwrap();
        assert_eq!(found, [("A".to_owned(), "12".to_owned())]);
    }

    #[test]
    fn commands_are_expanded_with_the_environment() {
        let env = [("PORT".to_owned(), "80".to_owned())];
        let words = vec!["serve".to_owned(), "--port=$(PORT)".to_owned()];
        assert_eq!(expanded(Some(&words), &env), ["serve", "--port=80"]);
    }
}
