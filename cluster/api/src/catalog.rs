//! The catalog of resources: every kind that is served.
//!
//! A new kind is a file in [`crate::kinds`] with its `RESOURCE` and a line in `ROWS`.

use crate::field::at;
use crate::kinds;
use crate::resource::Resource;
use serde_json::Value;

/// Every resource served, in the order in which discovery lists them.
static ROWS: [Resource; 18] = [
    kinds::configmaps::RESOURCE,
    kinds::endpoints::RESOURCE,
    kinds::events::RESOURCE,
    kinds::namespaces::RESOURCE,
    kinds::nodes::RESOURCE,
    kinds::pods::RESOURCE,
    kinds::replicationcontrollers::RESOURCE,
    kinds::secrets::RESOURCE,
    kinds::serviceaccounts::RESOURCE,
    kinds::services::RESOURCE,
    kinds::controllerrevisions::RESOURCE,
    kinds::daemonsets::RESOURCE,
    kinds::deployments::RESOURCE,
    kinds::replicasets::RESOURCE,
    kinds::jobs::RESOURCE,
    kinds::leases::RESOURCE,
    kinds::endpointslices::RESOURCE,
    kinds::trainingjobs::RESOURCE,
];

/// Every resource served.
pub fn resources() -> &'static [Resource] {
    &ROWS
}

/// The resource with this plural.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    ROWS.iter().find(|row| row.group == group && row.version == version && row.plural == plural)
}

/// The resource of this kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    ROWS.iter().find(|row| row.group == group && row.version == version && row.kind == kind)
}

/// The resource of an object, by its `apiVersion` and `kind`.
pub fn find_object(object: &Value) -> Option<&'static Resource> {
    let api_version = at(object, "apiVersion").as_str()?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    find_kind(group, version, at(object, "kind").as_str()?)
}

/// The resource that a person means by a plural, singular, short name or kind, in any case.
pub fn find_spoken(word: &str) -> Option<&'static Resource> {
    let word = word.to_ascii_lowercase();
    let (name, group) = word.split_once('.').map_or((word.as_str(), None), |(n, g)| (n, Some(g)));
    ROWS.iter().find(|row| {
        let named = row.plural == name
            || row.singular == name
            || row.kind.eq_ignore_ascii_case(name)
            || row.short_names.contains(&name);
        let grouped =
            |group: &str| group == row.group || group == format!("{}.{}", row.version, row.group);
        named && group.is_none_or(grouped)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Verb;
    use crate::rules::recorded_data::table;

    fn verbs(verbs: &[Verb], separator: &str) -> String {
        verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>().join(separator)
    }

    #[test]
    fn every_row_says_what_a_kubernetes_server_says_in_discovery() {
        let recorded = table("resources.tsv");
        for row in resources().iter().filter(|row| row.group != "training.impresario.dev") {
            let subresources: Vec<String> = row
                .subresources
                .iter()
                .map(|sub| format!("{}:{}:{}", sub.name, verbs(sub.verbs, "+"), sub.kind))
                .collect();
            let ours = vec![
                row.api_version(),
                row.plural.to_owned(),
                row.singular.to_owned(),
                row.kind.to_owned(),
                row.short_names.join(","),
                row.categories.join(","),
                if row.namespaced { "Namespaced" } else { "Cluster" }.to_owned(),
                verbs(row.verbs, ","),
            ];
            let theirs = recorded
                .iter()
                .find(|cells| cells[0] == ours[0] && cells[1] == ours[1])
                .unwrap_or_else(|| panic!("{} is not recorded", row.plural));
            assert_eq!(ours, theirs[..8]);
            for subresource in subresources {
                assert!(theirs[8].split(' ').any(|s| s == subresource), "{subresource}");
            }
        }
    }

    #[test]
    fn every_table_has_the_columns_that_a_kubernetes_server_prints() {
        let recorded = table("columns.tsv");
        for row in resources().iter().filter(|row| row.group != "training.impresario.dev") {
            let ours: Vec<Vec<String>> = row
                .columns
                .iter()
                .map(|c| {
                    vec![c.name.into(), c.kind.into(), c.format.into(), c.priority.to_string()]
                })
                .collect();
            let theirs: Vec<Vec<String>> = recorded
                .iter()
                .filter(|cells| cells[0] == row.api_version() && cells[1] == row.plural)
                .map(|cells| cells[2..6].to_vec())
                .collect();
            assert_eq!(ours, theirs, "columns of {}", row.plural);
        }
    }

    #[test]
    fn a_person_finds_a_resource_by_any_of_its_names() {
        for word in ["pods", "po", "Pod", "pod"] {
            assert_eq!(find_spoken(word).map(|row| row.plural), Some("pods"), "{word}");
        }
        for word in ["jobs.batch", "job.v1.batch", "tj"] {
            assert!(find_spoken(word).is_some(), "{word}");
        }
        assert!(find_spoken("jobs.apps").is_none());
    }
}
