//! Certificates that are trusted no more, as the cluster's operators say it.
//!
//! They stand in a config map of `kube-system`: each key is the SHA-256 fingerprint of a certificate
//! in hexadecimal, each value says why. Every control member and every node follows it:
//!
//! ```text
//! kubectl -n kube-system create configmap revoked-certificates --from-literal=FINGERPRINT=lost
//! ```

use crate::tls::Fingerprint;
use futures_util::StreamExt;
use impresario_api::catalog::find;
use impresario_objects::may::REVOKED_CERTIFICATES;
use impresario_objects::{Filter, ObjectEvent, Reader, WatchQuery};
use impresario_runtime::Backoff;
use serde_json::Value;
use std::collections::HashSet;
use std::time::Duration;
use tokio::task::JoinHandle;

/// The config map and its namespace.
const NAMESPACE: &str = REVOKED_CERTIFICATES.0;
const NAME: &str = REVOKED_CERTIFICATES.1;
/// Until the config map is followed again after its watch has ended.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(500), most: Duration::from_secs(10) };

/// Follows what is revoked. Ends when dropped.
#[derive(Debug)]
pub struct Revocations(JoinHandle<()>);

impl Drop for Revocations {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Revocations {
    /// Tells what stands in the config map, whenever it changes.
    #[must_use]
    pub fn follow(
        objects: Reader,
        told: impl Fn(HashSet<Fingerprint>) + Send + Sync + 'static,
    ) -> Self {
        Self(tokio::spawn(async move {
            let mut attempt = 0;
            loop {
                attempt = if follow_once(&objects, &told).await { 0 } else { attempt + 1 };
                tokio::time::sleep(PAUSES.wait(attempt, rand::random())).await;
            }
        }))
    }
}

/// Until the watch ends; says whether it had begun. What cannot be read changes nothing: who was revoked stays so.
async fn follow_once(objects: &Reader, told: &(impl Fn(HashSet<Fingerprint>) + Sync)) -> bool {
    let mut begun = false;
    let Some(configs) = find("", "v1", "configmaps") else { return begun };
    let filter = Filter { name: Some(NAME.to_owned()), ..Filter::default() };
    let query = WatchQuery {
        namespace: Some(NAMESPACE.to_owned()),
        filter,
        initial_events: Some(true),
        ..WatchQuery::default()
    };
    let mut events = match objects.watch(&configs, query).await {
        Ok(events) => events,
        Err(error) => {
            tracing::debug!(%error, "revoked certificates cannot be read yet");
            return begun;
        }
    };
    let mut found = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(ObjectEvent::Added(object) | ObjectEvent::Modified(object)) => found = read(&object),
            Ok(ObjectEvent::Deleted(_)) => found = HashSet::new(),
            Ok(ObjectEvent::Bookmark { initial_end, .. }) => begun |= initial_end,
            Err(error) => {
                tracing::debug!(%error, "the watch of revoked certificates ended");
                return begun;
            }
        }
        if begun {
            told(found.clone());
        }
    }
    begun
}

/// The fingerprints in a config map; with the colons and capitals that tools print, too.
fn read(object: &Value) -> HashSet<Fingerprint> {
    let keys = object.get("data").and_then(Value::as_object).into_iter().flat_map(|map| map.keys());
    let mut found = HashSet::new();
    for key in keys {
        match fingerprint(key) {
            Some(print) => {
                found.insert(print);
            }
            None => tracing::warn!(
                key,
                "a key of {NAMESPACE}/{NAME} is no SHA-256 fingerprint in hexadecimal: correct it"
            ),
        }
    }
    found
}

/// A SHA-256 fingerprint in hexadecimal, with or without the colons, dashes or dots that tools put between.
#[must_use]
pub fn fingerprint(text: &str) -> Option<Fingerprint> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|one| !matches!(one, ':' | '-' | '.'))
        .map(|one| one.to_digit(16))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|two| (two[0] << 4 | two[two.len() - 1]) as u8).collect();
    (digits.len() == 64).then(|| bytes.try_into().ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fingerprints_are_read_as_tools_print_them_and_others_left_out() {
        let plain = "0a".repeat(32);
        let spaced = vec!["0A"; 32].join("-");
        let object =
            json!({"data": {plain.clone(): "lost", spaced: "the same", "short": "", "0a": ""}});
        assert_eq!(read(&object), [[10; 32]].into());
        assert_eq!(read(&json!({})), HashSet::new());
        assert_eq!(fingerprint(&plain[1..]), None);
    }
}
