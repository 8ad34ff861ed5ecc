//! Waiting until this member has what others have written: once for all who wait at that moment, so that credentials that
//! somebody made up cost the cluster one question after another and never many.

use impresario_registry_api::{Consistency, Key, RegistryHandle};
use impresario_runtime::clock;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;

/// When this member was last known to have everything that was written before; why it may not, in words.
#[derive(Debug, Clone, Default)]
pub struct CatchUp(Arc<Mutex<Option<Last>>>);

/// When it was asked last, and what came of it.
type Last = (Instant, Result<(), String>);

impl CatchUp {
    /// Waits until this member has everything that was written before the call. The key is one that is looked for.
    pub async fn wait(&self, registry: &RegistryHandle, key: &Key) -> Result<(), String> {
        let asked = clock::now();
        let mut last = self.0.lock().await;
        if let Some((_, outcome)) = last.as_ref().filter(|(since, _)| *since >= asked) {
            return outcome.clone();
        }
        let since = clock::now();
        let read = registry.get(key.clone(), Consistency::Linearizable).await;
        let outcome = read.map(drop).map_err(|error| error.to_string());
        *last = Some((since, outcome.clone()));
        outcome
    }
}
