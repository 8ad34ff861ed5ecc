//! What programs may do that come by message: the same roles are asked as over REST.

use super::defaults::CLIENTS;
use super::follow::{Roles, Verdict};
use super::index::{Asked, Asker};
use crate::may::{Ask, Rule, Verb};

/// The groups of a program, by the certificate that it shows.
pub fn groups() -> Vec<String> {
    [CLIENTS, "system:authenticated"].map(ToOwned::to_owned).into()
}

impl Roles {
    /// Whether the program of this name may do it.
    pub(crate) fn permit(&self, program: &str, ask: &Ask<'_>) -> Result<(), Rule> {
        let (group, resource) = ask.resource.split_once('/').unwrap_or(("", ask.resource));
        let (verb, subresource) = match ask.verb {
            Verb::Get => ("get", ask.subresource),
            Verb::List => ("list", ask.subresource),
            Verb::Watch => ("watch", ask.subresource),
            Verb::Create => ("create", ask.subresource),
            Verb::Update => ("update", ask.subresource),
            Verb::Patch => ("patch", ask.subresource),
            Verb::Delete => ("delete", ask.subresource),
            Verb::Bind => ("create", "binding"),
        };
        let (namespace, name) = (ask.namespace, ask.name);
        let asked = Asked::Resource { verb, group, resource, subresource, namespace, name };
        match self.may(Asker { name: program, groups: &groups() }, asked) {
            Verdict::Allowed(_) => Ok(()),
            Verdict::Denied => Err(Rule::Nothing),
            Verdict::Unread => Err(Rule::Unread),
        }
    }
}
