//! How the actors of a training job are called, and where they live.

use impresario_runtime::NodeName;

/// The actor name of a training job.
pub fn job_actor(uid: &str) -> String {
    format!("trainingjob/{uid}")
}

/// The actor name of the parameter server in the pod with this uid.
pub fn parameter_server_actor(pod_uid: &str) -> String {
    format!("parameterserver/{pod_uid}")
}

/// The actor name of the trainer in the pod with this uid.
pub fn trainer_actor(pod_uid: &str) -> String {
    format!("trainer/{pod_uid}")
}

/// The name of the actor node of the guest in the pod with this uid, as in its certificate.
pub fn guest_node(pod_uid: &str) -> NodeName {
    NodeName::from(format!("guest-{pod_uid}").as_str())
}
