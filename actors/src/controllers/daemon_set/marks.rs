//! What is written on the pods and revisions of a daemon set.

use impresario_api::kinds::daemonsets;

/// The label of a pod and of a revision that says of which template it is.
pub(super) const HASH: &str = daemonsets::REVISION_HASH;
/// The label of a pod that says how often the template had been changed when it was made.
pub(super) const GENERATION: &str = daemonsets::POD_TEMPLATE_GENERATION;
/// The annotation of a pod that says how many before it failed on its node, one soon after the other.
pub(super) const FAILURES: &str = "impresario.dev/daemon-pod-failures";
