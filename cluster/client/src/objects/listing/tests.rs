#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use futures_util::FutureExt as _;
use impresario_api::catalog::find;
use impresario_api::selector::LabelSelector;
use impresario_registry::MemoryRegistry;
use impresario_registry_api::{Around, BoxFuture, Key, Operation, Registry, Transaction};
use std::sync::Arc;

/// Puts one list together at a time, in two steps.
struct OneAtATime(MemoryRegistry, tokio::sync::Semaphore);

impl Around for OneAtATime {
    fn inner(&self) -> &dyn Registry {
        &self.0
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        Box::pin(async move {
            let _place = self.1.acquire().await;
            tokio::task::yield_now().await;
            self.0.list(request).await
        })
    }
}

#[tokio::test]
async fn a_list_that_waits_for_its_turn_keeps_no_place_of_the_registry() {
    let resource = &find("", "v1", "configmaps").unwrap();
    let one = Arc::new(OneAtATime(MemoryRegistry::new(), tokio::sync::Semaphore::new(1)));
    let reader = Reader::new(one.clone());
    let whole = ListQuery::default();
    let page = ListQuery { limit: Some(1), ..ListQuery::default() };
    let ahead: Option<Box<dyn ReadAhead>> = Some(Box::new(Allows(0)));
    let mut begun = [
        Box::pin(reader.listing(resource, &whole, None)),
        Box::pin(reader.listing(resource, &whole, ahead)),
        Box::pin(reader.listing(resource, &page, None)),
    ];
    // Each has had one turn, and gets no other.
    for listing in &mut begun {
        assert!(listing.as_mut().now_or_never().is_none());
    }
    let request = ListRequest::of(impresario_registry_api::Selection::all("pods"));
    let others =
        tokio::time::timeout(std::time::Duration::from_secs(30), Registry::list(&*one, request));
    assert!(others.await.expect("nobody is in its way").is_ok());
}

/// Allows so many bytes of what is read ahead.
struct Allows(usize);

impl ReadAhead for Allows {
    fn hold(&mut self, _: usize) -> bool {
        true
    }

    fn hold_ahead(&mut self, bytes: usize) -> bool {
        bytes <= self.0
    }
}

#[tokio::test]
async fn what_is_read_ahead_counts_for_what_may_be_replaced_of_it() {
    let resource = &find("", "v1", "configmaps").unwrap();
    let registry = MemoryRegistry::new();
    for number in 0..32 {
        let name = format!("a{number}");
        let value =
            serde_json::json!({"metadata": {"name": name}, "data": {"a": "x".repeat(PART_BYTES)}});
        let key = Key::new("configmaps", "default", &name);
        let put = Operation::Put { key, value: value.to_string().into() };
        let written = Transaction { operations: vec![put], ..Transaction::default() };
        registry.transact(written).await.unwrap();
    }
    let reader = Reader::new(Arc::new(registry));
    for (allowed, all) in [(3 * PART_BYTES, true), (PART_BYTES, false)] {
        let ahead: Option<Box<dyn ReadAhead>> = Some(Box::new(Allows(allowed)));
        let listing = reader.listing(resource, &ListQuery::default(), ahead).await.unwrap();
        assert_eq!(listing.rest.is_none(), all, "{} are there", listing.ready.len());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_read_ahead_a_while_ago_counts_as_it_weighs_and_is_read_again_where_that_is_too_much()
 {
    let resource = &find("", "v1", "configmaps").unwrap();
    let registry = MemoryRegistry::new();
    let put = async |name: &str| {
        let value =
            serde_json::json!({"metadata": {"name": name}, "data": {"a": "x".repeat(PART_BYTES)}});
        let key = Key::new("configmaps", "default", name);
        let put = Operation::Put { key, value: value.to_string().into() };
        let written = Transaction { operations: vec![put], ..Transaction::default() };
        registry.transact(written).await.unwrap();
    };
    let names: Vec<String> = (10..42).map(|number| format!("a{number}")).collect();
    for name in &names {
        put(name).await;
    }
    let reader = Reader::new(Arc::new(registry.clone()));
    for (allowed, most) in [(64 * PART_BYTES, 32), (3 * PART_BYTES, 3), (0, 1)] {
        let ahead: Option<Box<dyn ReadAhead>> = Some(Box::new(Allows(allowed)));
        let mut listing = reader.listing(resource, &ListQuery::default(), ahead).await.unwrap();
        let mut seen = vec![listing.next().await.unwrap().unwrap().entry];
        tokio::time::advance(FRESH).await;
        let later = format!("b{allowed}");
        put(&later).await;
        while let Some(item) = listing.next().await.unwrap() {
            seen.push(item.entry);
            assert!(listing.ready.len() <= most, "{} for {allowed}", listing.ready.len());
        }
        let seen: Vec<&str> = seen.iter().map(|entry| entry.key.name.as_str()).collect();
        assert_eq!(seen[..32], names, "for {allowed}");
        assert!(!seen.contains(&later.as_str()), "all of it is of one revision");
    }
}

#[tokio::test]
async fn few_large_objects_that_are_looked_at_leave_others_their_turn_too() {
    let resource = &find("", "v1", "configmaps").unwrap();
    let registry = MemoryRegistry::new();
    let large = "x".repeat(TURN_BYTES / 4);
    for number in 0..10 {
        let name = format!("a{number}");
        let value = serde_json::json!({"metadata": {"name": name}, "data": {"a": large}});
        let key = Key::new("configmaps", "default", &name);
        let put = Operation::Put { key, value: value.to_string().into() };
        let written = Transaction { operations: vec![put], ..Transaction::default() };
        registry.transact(written).await.unwrap();
    }
    let labels = LabelSelector::parse("tier=web").unwrap();
    let filter = Filter { labels: Some(labels), ..Filter::default() };
    let query = ListQuery { filter, ..ListQuery::default() };
    let mut listing =
        Reader::new(Arc::new(registry)).listing(resource, &query, None).await.unwrap();
    let mut next = Box::pin(listing.next());
    assert!(next.as_mut().now_or_never().is_none(), "it was looked at all of them at once");
    assert!(next.await.unwrap().is_none());
}
