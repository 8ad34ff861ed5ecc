//! What sources say, for the kinds that named them: changes that one of them missed concern no other kind.

use crate::controllers::engine::sources::{Concerned, Source};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Who should look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Woken {
    /// The actors of the objects of these uids, where they live here.
    Uids(Vec<String>),
    /// All actors of the kinds of these numbers: changes were missed that may concern any of them.
    Kinds(Vec<usize>),
}

/// Each source once, with the numbers of the kinds that named it.
pub(super) fn sources<'k>(
    named: impl IntoIterator<Item = (usize, &'k [Source])>,
) -> Vec<(Source, Vec<usize>)> {
    let mut sources: BTreeMap<&str, (&Source, Vec<usize>)> = BTreeMap::new();
    for (number, its) in named {
        for source in its {
            let (_, numbers) = sources.entry(source.name()).or_insert_with(|| (source, Vec::new()));
            if numbers.last() != Some(&number) {
                numbers.push(number);
            }
        }
    }
    sources.into_values().map(|(source, numbers)| (source.clone(), numbers)).collect()
}

/// Follows a source of these kinds until nobody listens or it has ended.
pub(super) async fn follow(source: Source, kinds: Vec<usize>, woken: mpsc::Sender<Woken>) {
    let (told, mut concerned) = mpsc::channel(1);
    let pass_on = async move {
        while let Some(concerned) = concerned.recv().await {
            let next = match concerned {
                Concerned::Uids(uids) => Woken::Uids(uids),
                Concerned::Everybody => Woken::Kinds(kinds.clone()),
            };
            if woken.send(next).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(source.run(told), pass_on);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::mirror::Mirror;
    use crate::testing::LIMIT;
    use futures_util::FutureExt as _;
    use impresario_registry::{MemoryRegistry, Registry as _};
    use impresario_registry_api::{Key, Transaction};
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;
    use std::sync::Arc;

    #[tokio::test]
    async fn changes_that_are_missed_make_the_kinds_look_that_named_their_source_and_no_other() {
        let registry = MemoryRegistry::default();
        let mirror: Mirror<Pod> = Mirror::start(Arc::new(registry.clone()), "pods");
        mirror.reached(1, LIMIT).await.unwrap();
        let named = [Source::controllers_of(&mirror)];
        let mut found = sources([(0, &named[..]), (1, &[]), (2, &named[..])]);
        let (source, numbers) = found.remove(0);
        assert_eq!((found.len(), numbers.as_slice()), (0, [0, 2].as_slice()));

        let (told, mut woken) = mpsc::channel(1);
        let mut following = follow(source, numbers, told).boxed();
        assert!(futures_util::poll!(&mut following).is_pending(), "it waits for what comes");
        // Nobody reads what it says meanwhile.
        let mut last = 0;
        for number in 0..2_000 {
            let owner = json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "rc",
                "uid": "rc", "controller": true});
            let pod = json!({"metadata": {"name": format!("p{number}"), "namespace": "ns",
                "uid": number.to_string(), "ownerReferences": [owner]}});
            let key = Key::new("pods", "ns", format!("p{number}"));
            let create = Transaction::create(key, pod.to_string());
            last = registry.transact(create).await.unwrap().revision;
        }
        mirror.reached(last, LIMIT).await.unwrap();
        let reading = async {
            loop {
                match woken.recv().await.expect("it ends with the mirror") {
                    Woken::Uids(uids) => assert_eq!(uids, ["rc"]),
                    Woken::Kinds(numbers) => return numbers,
                }
            }
        };
        let reading = tokio::time::timeout(LIMIT, reading);
        tokio::select! {
            () = following => panic!("it ends with the mirror"),
            numbers = reading => assert_eq!(numbers.expect("in time"), [0, 2]),
        }
    }
}
