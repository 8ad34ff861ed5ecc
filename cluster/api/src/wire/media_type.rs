//! The media types of bodies.

/// The media type of JSON.
pub const JSON: &str = "application/json";
/// The media type of YAML.
pub const YAML: &str = "application/yaml";
/// The media type of Kubernetes' own protobuf envelope.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// The media type of server-side apply; its bodies are YAML.
pub const APPLY_YAML: &str = "application/apply-patch+yaml";

/// The media type without its parameters, in lower case.
pub(super) fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
