//! What a write is, to those who are asked about it.

use impresario_api::resource::Resource;
use impresario_client::objects::WriteOptions;
use serde_json::{Value, json};

/// Who writes where nobody is named: an actor of a control member.
const ITSELF: &str = "system:impresario";

/// What is done to an object, in the words of admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is made.
    Create,
    /// It is changed, by whichever door.
    Update,
    /// It is deleted.
    Delete,
}

impl Action {
    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// What is asked for, apart from the object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The kind of the object.
    pub(crate) resource: &'a Resource,
    /// The subresource, or empty.
    pub(crate) subresource: &'a str,
    /// What is done.
    pub(crate) action: Action,
    /// In which namespace; empty where there are none.
    pub(crate) namespace: &'a str,
    /// To which object; empty where its name is yet to be drawn.
    pub(crate) name: &'a str,
    /// How.
    pub(crate) options: &'a WriteOptions,
}

impl Asked<'_> {
    /// The `request` of a review, without its uid and objects.
    pub(crate) fn request(&self) -> Value {
        let resource = self.resource;
        let kind =
            json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        let plural = json!({
            "group": resource.group, "version": resource.version, "resource": resource.plural,
        });
        let (user, groups) = match self.options.user.as_str() {
            "" => (ITSELF, json!(["system:masters", "system:authenticated"])),
            user => (user, json!(self.options.groups)),
        };
        let dry: &[&str] = if self.options.dry_run { &["All"] } else { &[] };
        let kind_of_options = match self.action {
            Action::Create => "CreateOptions",
            Action::Update => "UpdateOptions",
            Action::Delete => "DeleteOptions",
        };
        let mut options = json!({"kind": kind_of_options, "apiVersion": "meta.k8s.io/v1"});
        if !dry.is_empty() {
            options["dryRun"] = json!(dry);
        }
        if !self.options.manager.is_empty() && self.action != Action::Delete {
            options["fieldManager"] = json!(self.options.manager);
        }
        let mut request = json!({
            "kind": kind, "requestKind": kind,
            "resource": plural, "requestResource": plural,
            "operation": self.action.as_str(),
            "userInfo": {"username": user, "groups": groups},
            "dryRun": self.options.dry_run,
            "options": options,
        });
        for (field, value) in [
            ("name", self.name),
            ("namespace", self.namespace),
            ("subResource", self.subresource),
            ("requestSubResource", self.subresource),
        ] {
            if !value.is_empty() {
                request[field] = json!(value);
            }
        }
        request
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use impresario_api::catalog::find;

    #[test]
    fn a_request_tells_who_asks_for_what() {
        let pods = find("", "v1", "pods").unwrap();
        let options = WriteOptions {
            dry_run: true,
            manager: "m".into(),
            user: "eve".into(),
            groups: vec!["g".into()],
            ..WriteOptions::default()
        };
        let asked = Asked {
            resource: &pods,
            subresource: "status",
            action: Action::Update,
            namespace: "ns",
            name: "p",
            options: &options,
        };
        let request = asked.request();
        for (pointer, expected) in [
            ("/resource", json!({"group": "", "version": "v1", "resource": "pods"})),
            ("/kind/kind", json!("Pod")),
            ("/subResource", json!("status")),
            ("/namespace", json!("ns")),
            ("/name", json!("p")),
            ("/operation", json!("UPDATE")),
            ("/userInfo", json!({"username": "eve", "groups": ["g"]})),
            ("/dryRun", json!(true)),
            ("/options/dryRun", json!(["All"])),
            ("/options/fieldManager", json!("m")),
        ] {
            assert_eq!(request.pointer(pointer), Some(&expected), "{pointer}");
        }
    }
}
