//! A registry for tests of which the watches of one resource tell nothing until it is opened: mirrors of it show
//! what there was when they were filled.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_objects::Objects;
use impresario_registry::MemoryRegistry;
use impresario_registry_api::{Around, Registry, Watch, WatchError, WatchRequest};
use std::sync::Arc;
use tokio::sync::watch::{Receiver, Sender, channel};

struct Late {
    registry: MemoryRegistry,
    resource: &'static str,
    open: Receiver<bool>,
}

/// Objects of this registry, and what opens the watches of the resource.
pub fn late(registry: MemoryRegistry, resource: &'static str) -> (Objects, Sender<bool>) {
    let (opener, open) = channel(false);
    (Objects::new(Arc::new(Late { registry, resource, open })), opener)
}

impl Around for Late {
    fn inner(&self) -> &dyn Registry {
        &self.registry
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
        async move {
            let is_late = request.select.resource == self.resource;
            let mut open = self.open.clone();
            let watch = self.registry.watch(request).await?;
            let opened = async move {
                if is_late {
                    let _ = open.wait_for(|open| *open).await;
                }
                watch
            };
            Ok(Watch::new(opened.flatten_stream()))
        }
        .boxed()
    }
}
