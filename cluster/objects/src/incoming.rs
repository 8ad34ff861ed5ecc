//! What comes by message, brought within the limits of every door before anything is made of it.

use impresario_api::catalog::served;
use impresario_api::resource::{Row, resource_key};
use impresario_api::rules::{self, metadata};
use impresario_api::status::Status;
use impresario_api::wire::{self, Decoded, FieldValidation, Target};
use impresario_registry_api::Page;
use serde_json::Value;

/// The most bytes of objects that one answer has; the rest is asked for again.
pub(crate) const PAGE_BYTES: usize = 16 * 1024 * 1024;
/// The longest name of anything that is asked for: longer ones are not even repeated in a refusal.
const NAME_BYTES: usize = 512;

/// The new state of what a node owns, as it is to be stored. It must be readable as what it is: everybody else's
/// mirrors read it. Metadata that breaks the rules would keep everybody else from changing the object.
pub(crate) fn settled(resource: &Row, old: &Value, value: &[u8]) -> Result<Value, String> {
    if !matches!(resource_key(resource).as_str(), "pods" | "nodes" | "events") {
        let plural = &resource.plural;
        return Err(format!("{plural} are not written so: create, change or delete them"));
    }
    let new = wire::decode(target(resource), wire::JSON, value, FieldValidation::Ignore)
        .map_err(|error| error.to_string())?
        .object;
    let causes = match &*resource.plural {
        "pods" => rules::pod::validate_status(&new, old),
        "nodes" => metadata::validate_again(&new),
        _ => Vec::new(),
    };
    match causes.first() {
        Some(cause) => Err(format!("the new state is not valid: {cause}")),
        None => Ok(new),
    }
}

/// An object of a resource, read within the limits of every door: its size and depth, the memory that it takes, and
/// the types and names of its fields.
pub(crate) fn read(resource: &Row, body: &[u8]) -> Result<Decoded, Status> {
    wire::decode(target(resource), wire::JSON, body, FieldValidation::Strict).map_err(refused)
}

/// An object that this process has made, with the types and names of fields that every door asks for.
pub(crate) fn decoded(resource: &Row, object: Value) -> Result<Decoded, Status> {
    wire::decoded(target(resource), object).map_err(refused)
}

fn refused(error: wire::DecodeError) -> Status {
    match error {
        wire::DecodeError::TooLarge => Status::too_large(wire::MAX_BODY_BYTES),
        other => Status::bad_request(other.to_string()),
    }
}

/// The kind that a resource's objects are.
pub(crate) fn target(resource: &Row) -> Target<'_> {
    resource.target()
}

/// Refuses names that nothing can have, without repeating them.
pub(crate) fn bounded(names: &[&str]) -> Result<(), String> {
    match names.iter().map(|name| name.len()).max() {
        Some(longest) if longest > NAME_BYTES => Err(format!(
            "a name of {longest} bytes is over the limit of {NAME_BYTES}: nothing is called so"
        )),
        _ => Ok(()),
    }
}

/// As much of a page as fits; one entry at least, so that the reader comes on.
pub(crate) fn within(mut page: Page, limit: usize) -> Page {
    let mut bytes = 0;
    let fits = page.entries.iter().take_while(|entry| {
        let first = bytes == 0;
        bytes += entry.value.len() + entry.key.bytes();
        first || bytes <= limit
    });
    let kept = fits.count();
    page.remaining += page.entries.len() - kept;
    page.entries.truncate(kept);
    page
}

/// The resource of this key, if the API has one.
pub(crate) fn known(resource: &str) -> Result<Row, String> {
    served().find_key(resource).ok_or_else(|| {
        format!("{resource:?} is no resource of the API: `kubectl api-resources` lists them")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use impresario_api::catalog::find;
    use impresario_registry_api::{Entry, Key};
    use serde_json::json;

    #[test]
    fn a_body_that_would_be_gigabytes_is_refused_before_it_is_read() {
        let events = &find("", "v1", "events").unwrap();
        let list = format!("[{}0]", "0,".repeat(1 << 20));
        let many = format!(r#"{{"metadata":{{"name":"e"}},"x":{list}}}"#);
        assert!(read(events, many.as_bytes()).unwrap_err().message.contains("MiB of memory"));
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(read(events, deep.as_bytes()).is_err());
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(wire::MAX_BODY_BYTES));
        assert_eq!(read(events, long.as_bytes()).unwrap_err().code(), 413);
    }

    #[test]
    fn what_nobody_could_decode_is_refused_by_message_as_by_rest() {
        let events = &find("", "v1", "events").unwrap();
        for wrong in [
            json!({"metadata": {"name": "e"}, "count": "x"}),
            json!({"metadata": {"name": "e"}, "firstTimestamp": {}}),
            json!({"metadata": {"name": "e"}, "cuont": 1}),
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "e"}}),
            json!([]),
        ] {
            assert!(read(events, wrong.to_string().as_bytes()).is_err(), "{wrong}");
        }
        assert!(read(events, br#"{"metadata":{"name":"e"},"count":1}"#).is_ok());
        let nodes = &find("", "v1", "nodes").unwrap();
        let old = json!({"metadata": {"name": "n1"}});
        let settles = |new: Value| settled(nodes, &old, new.to_string().as_bytes());
        assert!(
            settles(json!({"metadata": {"name": "n1"}, "status": {"conditions": "x"}})).is_err()
        );
        assert!(settles(json!({"metadata": {"name": "n1", "labels": {"zone": "a b"}}})).is_err());
        let notes = "x".repeat(1 << 20);
        assert!(settles(json!({"metadata": {"name": "n1", "annotations": {"a": notes}}})).is_err());
        assert!(settles(json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}})).is_ok());
    }

    #[test]
    fn a_name_that_nothing_has_is_not_repeated() {
        assert_eq!(bounded(&["pods", "ns", &"a".repeat(NAME_BYTES)]), Ok(()));
        let refused = bounded(&["pods", &"a".repeat(1 << 20)]).unwrap_err();
        assert!(refused.len() < 200, "{refused}");
    }

    #[test]
    fn a_page_ends_where_it_is_full_and_never_before_its_first_entry() {
        let entry = |bytes: usize| Entry {
            key: Key::new("pods", "ns", "p"),
            value: vec![b' '; bytes].into(),
            create_revision: 1,
            mod_revision: 1,
        };
        let page = |sizes: &[usize]| Page {
            entries: sizes.iter().map(|bytes| entry(*bytes)).collect(),
            revision: 1,
            remaining: 5,
        };
        let cut = |sizes: &[usize]| {
            let page = within(page(sizes), 1000);
            (page.entries.len(), page.remaining)
        };
        assert_eq!(cut(&[400, 400, 400]), (2, 6));
        assert_eq!(cut(&[4000, 1]), (1, 6));
        assert_eq!(cut(&[10, 10]), (2, 5));
        assert_eq!(cut(&[]), (0, 5));
    }
}
