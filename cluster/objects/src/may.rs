//! Who may do what with which object: one question, one answer, one place.
//!
//! [`may`] is a plain function of who asks, of what is asked, and of the object before and after. It
//! knows neither wires nor registries: the actor, the gateway and the gate bring it what they have. The
//! rules for nodes are Kubernetes' (node authorizer and the admission plugin `NodeRestriction`). Users and
//! programs are judged by the roles that are bound to them ([`rbac`](crate::rbac)). What no rule allows is refused.

mod ask;
mod node;

pub use ask::{Ask, Bound, Denied, NothingBound, Rule, Verb, Who, user_of_guest, user_of_node};
pub use node::REVOKED_CERTIFICATES;

/// The group whose members may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of all machines.
pub const NODES: &str = "system:nodes";
/// The group whose members may read everything but secrets, unless its binding is changed.
pub const VIEWERS: &str = "impresario:viewers";

/// Whether it may be done.
pub fn may(who: Who<'_>, ask: &Ask<'_>, bound: &dyn Bound) -> Result<(), Denied> {
    let verdict = match who {
        Who::Member | Who::Admin => Ok(()),
        Who::Node(name) => node::may(name, ask, bound),
        Who::Guest => Err(Rule::NoObjects),
        // Roles are asked where they are known.
        Who::Client(_) => Err(Rule::Nothing),
    };
    verdict.map_err(|rule| ask.denied(who, rule))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use impresario_runtime::PeerRole;

    #[test]
    fn a_guest_has_nothing_and_members_and_operators_have_everything() {
        let ask = Ask::of(Verb::Get, "pods", "default", "a");
        assert_eq!(may(Who::Guest, &ask, &NothingBound).unwrap_err().rule, Rule::NoObjects);
        let all = Ask::of(Verb::Delete, "secrets", "", "");
        assert!(may(Who::Admin, &all, &NothingBound).is_ok());
        assert!(may(Who::Member, &all, &NothingBound).is_ok());
    }

    #[test]
    fn a_control_member_is_one_by_its_certificate_and_by_the_membership() {
        let is_member = |name: &str| name == "m1";
        assert_eq!(Who::holder("m1", &PeerRole::Control, is_member), Who::Member);
        assert_eq!(Who::holder("removed", &PeerRole::Control, is_member), Who::Node("removed"));
        assert_eq!(Who::holder("m1", &PeerRole::Node, is_member), Who::Node("m1"));
    }

    #[test]
    fn who_chooses_the_name_of_a_machine_or_a_guest_is_no_user_of_that_name() {
        let is_member = |name: &str| name == "m1";
        let guest = PeerRole::Guest { scope: "j".into() };
        for (role, name, user) in [
            (PeerRole::Control, "m1", "system:node:m1"),
            (PeerRole::Control, "ann", "system:node:ann"),
            (PeerRole::Node, "ann", "system:node:ann"),
            (guest, "ann", "impresario:guest:ann"),
            (PeerRole::Client, "sdk-1", "sdk-1"),
            (PeerRole::Admin, "ann", "ann"),
        ] {
            assert_eq!(Who::holder(name, &role, is_member).user(name), user, "{role:?}");
        }
    }

    #[test]
    fn a_refusal_names_who_what_and_what_would_be_allowed() {
        let ask = Ask::of(Verb::Delete, "pods", "default", "a");
        let denied = may(Who::Client("sdk"), &ask, &NothingBound).unwrap_err().to_string();
        assert_eq!(
            denied,
            "a client may not delete pods \"default/a\": no role that is bound to it allows it"
        );
    }
}
