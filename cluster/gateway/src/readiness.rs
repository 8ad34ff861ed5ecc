//! Whether the registry answers, asked at most once in a while, however many want to know.

use impresario_registry_api::{Consistency, Key, RegistryHandle};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long the registry has to answer when we are asked whether we are ready.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long its answer is good.
const FRESH: Duration = Duration::from_secs(1);

/// What the registry said last. One asks it, and who comes meanwhile waits for the same answer.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Option<(Instant, Result<(), String>)>>);

impl Readiness {
    /// Whether the registry answers reads that must be certain; else why not.
    pub async fn ask(&self, registry: &RegistryHandle) -> Result<(), String> {
        let mut last = self.0.lock().await;
        if let Some((_, said)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return said.clone();
        }
        let key = Key::new("namespaces", "", "default");
        let read = registry.get(key, Consistency::Linearizable);
        let said = match tokio::time::timeout(DEADLINE, read).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {DEADLINE:?}")),
        };
        *last = Some((Instant::now(), said.clone()));
        said
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::authenticate::tests::Lagging;
    use std::sync::Arc;

    #[tokio::test]
    async fn who_asks_a_thousand_times_costs_the_registry_a_few_reads() {
        let counts = Arc::new(Lagging::default());
        let registry: RegistryHandle = counts.clone();
        let readiness = Readiness::default();
        // Together, and one after the other.
        let all = (0..500).map(|_| readiness.ask(&registry));
        for said in futures_util::future::join_all(all).await {
            said.unwrap();
        }
        for _ in 0..500 {
            readiness.ask(&registry).await.unwrap();
        }
        // One a second: on a machine that stands still now and then it may be more than one.
        assert!((1..100).contains(&counts.asked()), "{}", counts.asked());
    }
}
