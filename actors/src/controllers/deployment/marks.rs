//! What is written on the replica sets of a deployment.

use k8s_openapi::api::apps::v1::ReplicaSet;

/// The label by which the pods of one set are told from those of another.
pub(super) const HASH: &str = impresario_api::kinds::deployments::TEMPLATE_HASH;
/// Annotation of a set and of its deployment: the number of the revision, from 1.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation of a set: the revisions that it was before, with commas between.
pub(super) const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation of a set: how many pods its deployment asked for when the set got its size.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation of a set: how many pods the deployment might have then, with its surge.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// A number in an annotation of a set.
pub(super) fn number<N: std::str::FromStr>(set: &ReplicaSet, key: &str) -> Option<N> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}
