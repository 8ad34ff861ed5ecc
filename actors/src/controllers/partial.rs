//! The metadata of an object, whatever else it is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, Metadata};
use serde::Deserialize;

/// The metadata of an object of which nobody looks at more.
#[derive(Debug, Default, Deserialize)]
pub struct Partial {
    metadata: ObjectMeta,
}

impl Partial {
    /// The metadata.
    #[must_use]
    pub fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    /// The same, by itself.
    #[must_use]
    pub fn into_metadata(self) -> ObjectMeta {
        self.metadata
    }
}

impl k8s_openapi::Resource for Partial {
    const API_VERSION: &'static str = "meta.k8s.io/v1";
    const GROUP: &'static str = "meta.k8s.io";
    const KIND: &'static str = "PartialObjectMetadata";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "";
    type Scope = ClusterResourceScope;
}

impl Metadata for Partial {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
