//! What is served, in the forms that clients ask for.
//!
//! Old clients read a list of versions, a list of groups and a list of resources for each; newer
//! ones ask for everything at once. All of it is read off the resource table.

use crate::catalog::{resources, unkept};
use crate::resource::{Resource, Row, Text, Verb};
use serde_json::{Map, Value, json};

/// Which aggregated form a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregated {
    /// `apidiscovery.k8s.io/v2`
    V2,
    /// `apidiscovery.k8s.io/v2beta1`, for clients before 1.30.
    V2Beta1,
}

impl Aggregated {
    /// The content type of the answer, which is also what clients ask for.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            }
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::V2 => "apidiscovery.k8s.io/v2",
            Self::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
        }
    }
}

/// `GET /api`; `address` is where clients reach this server, as `host:port`.
pub fn api_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": versions(""),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `GET /apis`
pub fn api_group_list() -> Value {
    let groups: Vec<Value> =
        groups().into_iter().filter(|group| !group.is_empty()).map(group_of).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/GROUP`
pub fn api_group(group: &str) -> Option<Value> {
    let known = groups().into_iter().find(|known| !known.is_empty() && known == group)?;
    let mut answer = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Value::Object(answer), Value::Object(fields)) = (&mut answer, group_of(known)) {
        answer.extend(fields);
    }
    Some(answer)
}

/// `GET /api/VERSION`, `GET /apis/GROUP/VERSION`
pub fn api_resource_list(group: &str, version: &str) -> Option<Value> {
    let rows = of(group, version);
    let api_version = rows.first()?.api_version();
    let mut list = Vec::new();
    for row in rows {
        let mut resource = json!({
            "name": row.plural,
            "singularName": row.singular,
            "namespaced": row.namespaced,
            "kind": row.kind,
            "verbs": words(row.verbs),
        });
        name_shortly(&mut resource, &row);
        list.push(resource);
        for sub in &row.subresources {
            let mut resource = json!({
                "name": format!("{}/{}", row.plural, sub.name),
                "singularName": "",
                "namespaced": row.namespaced,
                "kind": sub.kind,
                "verbs": words(sub.verbs),
            });
            if !sub.version.is_empty() {
                resource["group"] = sub.group.into();
                resource["version"] = sub.version.into();
            }
            list.push(resource);
        }
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version,
        "resources": list,
    }))
}

/// `GET /api` (`core`) or `GET /apis` with everything below them.
pub fn aggregated(form: Aggregated, core: bool) -> Value {
    let items: Vec<Value> = groups()
        .into_iter()
        .filter(|group| group.is_empty() == core)
        .map(|group| {
            let mut metadata = Map::new();
            if !group.is_empty() {
                metadata.insert("name".to_owned(), group.as_ref().into());
            }
            metadata.insert("creationTimestamp".to_owned(), Value::Null);
            let versions: Vec<Value> = versions(&group)
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        of(&group, &version).iter().map(|row| aggregated_resource(row)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": form.api_version(),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(row: &Resource) -> Value {
    let response = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut resource = json!({
        "resource": row.plural,
        "responseKind": response(&row.group, &row.version, &row.kind),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": words(row.verbs),
    });
    name_shortly(&mut resource, row);
    let subresources: Vec<Value> = row
        .subresources
        .iter()
        .map(|sub| {
            let own = sub.version.is_empty();
            let (group, version) = if own {
                (row.group.as_ref(), row.version.as_ref())
            } else {
                (sub.group, sub.version)
            };
            json!({
                "subresource": sub.name,
                "responseKind": response(group, version, &sub.kind),
                "verbs": words(sub.verbs),
            })
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = subresources.into();
    }
    resource
}

fn name_shortly(resource: &mut Value, row: &Resource) {
    if !row.short_names.is_empty() {
        resource["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        resource["categories"] = json!(row.categories);
    }
}

fn words(verbs: &[Verb]) -> Vec<&'static str> {
    let mut words: Vec<_> = verbs.iter().map(|verb| verb.as_str()).collect();
    words.sort_unstable();
    words
}

fn of(group: &str, version: &str) -> Vec<Row> {
    let all = resources();
    let all = unkept().chain(all.iter());
    all.filter(|row| row.group == group && row.version == version).cloned().collect()
}

/// The groups in the order of the table, then those of which nothing is kept, each once.
fn groups() -> Vec<Text> {
    let mut groups = Vec::new();
    for row in resources().iter().chain(unkept()) {
        if !groups.contains(&row.group) {
            groups.push(row.group.clone());
        }
    }
    groups
}

fn versions(group: &str) -> Vec<Text> {
    let mut versions = Vec::new();
    let all = resources();
    let all = all.iter().chain(unkept());
    for row in all.filter(|row| row.group == group) {
        if !versions.contains(&row.version) {
            versions.push(row.version.clone());
        }
    }
    versions
}

fn group_of(group: Text) -> Value {
    let versions: Vec<Value> = versions(&group)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_discovery_tell_of_every_resource() {
        for row in resources().iter().chain(unkept()) {
            let list = api_resource_list(&row.group, &row.version).unwrap();
            assert_eq!(list["groupVersion"], row.api_version());
            let named = |name: &str| {
                list["resources"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|resource| resource["name"] == name)
                    .cloned()
            };
            assert_eq!(named(&row.plural).unwrap()["kind"], *row.kind);
            for sub in &row.subresources {
                assert!(named(&format!("{}/{}", row.plural, sub.name)).is_some());
            }
            let all = aggregated(Aggregated::V2, row.group.is_empty());
            let resources =
                all.pointer("/items").unwrap().as_array().unwrap().iter().flat_map(|group| {
                    group["versions"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .flat_map(|version| version["resources"].as_array().unwrap())
                });
            let found = resources.into_iter().any(|resource| {
                resource["resource"] == *row.plural && resource["responseKind"]["kind"] == *row.kind
            });
            assert!(found, "{}", row.plural);
            assert_eq!(api_group(&row.group).is_some(), !row.group.is_empty());
        }
        assert!(api_resource_list("", "v2").is_none());
        assert!(api_group("nothing").is_none());
        assert_eq!(api_versions("127.0.0.1:6443")["versions"], json!(["v1"]));
    }

    #[test]
    fn the_scale_door_is_of_another_group() {
        let list = api_resource_list("", "v1").unwrap();
        let resources = list["resources"].as_array().unwrap();
        let scale = resources
            .iter()
            .find(|resource| resource["name"] == "replicationcontrollers/scale")
            .unwrap();
        assert_eq!((&scale["group"], &scale["version"]), (&json!("autoscaling"), &json!("v1")));
    }
}
