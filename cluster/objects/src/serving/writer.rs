//! Who writes by message, as policies, webhooks and what is noted of a write have it.

use super::ObjectsParts;
use crate::managers::of_role;
use crate::may::{MASTERS, Who};
use crate::rbac::program_groups;
use impresario_client::objects::WriteOptions;
use impresario_client::objects::protocol::Sender;

/// What everybody is in who has shown a credential.
const AUTHENTICATED: &str = "system:authenticated";

impl ObjectsParts {
    /// How this sender writes.
    pub(super) fn options(&self, sender: &Sender, dry_run: bool) -> WriteOptions {
        let who = self.who(sender);
        let (user, groups) = identity(who, &sender.name);
        let manager = of_role(who.role());
        WriteOptions { dry_run, manager, user, groups, ..WriteOptions::default() }
    }
}

/// The user and the groups of a sender, in the words of Kubernetes. A control member writes as the cluster itself.
fn identity(who: Who<'_>, name: &str) -> (String, Vec<String>) {
    let all = |groups: &[&str]| groups.iter().map(|&group| group.to_owned()).collect();
    let groups = match who {
        Who::Member => return (String::new(), Vec::new()),
        Who::Admin => all(&["impresario:admin", MASTERS, AUTHENTICATED]),
        Who::Node(_) => all(&["impresario:node", "system:nodes", AUTHENTICATED]),
        Who::Guest => all(&["impresario:guest", AUTHENTICATED]),
        Who::Client(_) => program_groups(),
    };
    (who.user(name), groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_by_message_is_told_by_what_it_is() {
        let told = |who| {
            let (user, groups) = identity(who, "n");
            format!("{user} {}", groups.join(","))
        };
        assert_eq!(told(Who::Member), " ");
        assert_eq!(told(Who::Admin), "n impresario:admin,system:masters,system:authenticated");
        assert_eq!(
            told(Who::Node("n")),
            "system:node:n impresario:node,system:nodes,system:authenticated"
        );
        assert_eq!(told(Who::Client("n")), "n impresario:client,system:authenticated");
        assert_eq!(told(Who::Guest), "impresario:guest:n impresario:guest,system:authenticated");
    }
}
