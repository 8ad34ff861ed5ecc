//! Who may do what with which object: one question, one answer, one place.
//!
//! [`may`] is a plain function of who asks, of what is asked, and of the object before and after. It
//! knows neither wires nor registries: the actor, the gateway and the gate bring it what they have. The
//! rules for nodes are Kubernetes' (node authorizer and the admission plugin `NodeRestriction`), those
//! for users are by group until RBAC takes their place. What no rule allows is refused.

mod ask;
mod node;

pub use ask::{Ask, Bound, Denied, NothingBound, Rule, Verb, Who};
pub use node::REVOKED_CERTIFICATES;

/// The group whose members may do everything.
pub const MASTERS: &str = "system:masters";
/// The group whose members may read everything but secrets.
pub const VIEWERS: &str = "impresario:viewers";

/// Whether it may be done.
pub fn may(who: Who<'_>, ask: &Ask<'_>, bound: &dyn Bound) -> Result<(), Denied> {
    let verdict = match who {
        Who::Member | Who::Admin => Ok(()),
        Who::Node(name) => node::may(name, ask, bound),
        Who::Guest => Err(Rule::NoObjects),
        Who::Client => reads(ask),
        Who::User(groups) => user(groups, ask),
    };
    verdict.map_err(|rule| ask.denied(who, rule))
}

fn user(groups: &[String], ask: &Ask<'_>) -> Result<(), Rule> {
    let is_in = |group: &str| groups.iter().any(|one| one == group);
    if is_in(MASTERS) {
        return Ok(());
    }
    if is_in(VIEWERS) { reads(ask) } else { Err(Rule::Nothing) }
}

/// Subresources that tell something of an object. All others reach into it: to execute a command or to
/// forward a port is a GET too.
const TELLING: [&str; 4] = ["", "status", "scale", "log"];

fn reads(ask: &Ask<'_>) -> Result<(), Rule> {
    let secret = ask.resource == "secrets" || ask.resource.starts_with("impresario.dev/");
    let allowed = ask.verb.reads() && !secret && TELLING.contains(&ask.subresource);
    if allowed { Ok(()) } else { Err(Rule::Readers) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use impresario_runtime::PeerRole;

    #[test]
    fn readers_read_all_but_secrets_and_reach_into_nothing() {
        let viewers = [VIEWERS.to_owned()];
        for who in [Who::Client, Who::User(&viewers)] {
            let allowed = |verb, resource: &str, subresource: &str| {
                let ask = Ask { subresource, ..Ask::of(verb, resource, "default", "a") };
                may(who, &ask, &NothingBound).is_ok()
            };
            for subresource in ["", "log", "status"] {
                assert!(allowed(Verb::Get, "pods", subresource), "{who:?} {subresource}");
            }
            for subresource in ["exec", "attach", "portforward", "proxy", "proxy/x", "token"] {
                assert!(!allowed(Verb::Get, "pods", subresource), "{who:?} {subresource}");
            }
            assert!(!allowed(Verb::Get, "secrets", ""));
            assert!(!allowed(Verb::Watch, "impresario.dev/tokens", ""));
            for verb in [Verb::Create, Verb::Update, Verb::Delete, Verb::Bind] {
                assert!(!allowed(verb, "pods", ""), "{who:?} {verb}");
            }
        }
    }

    #[test]
    fn a_guest_and_a_user_of_no_group_have_nothing_and_masters_have_everything() {
        let (none, masters) = ([], [MASTERS.to_owned()]);
        let ask = Ask::of(Verb::Get, "pods", "default", "a");
        assert_eq!(may(Who::Guest, &ask, &NothingBound).unwrap_err().rule, Rule::NoObjects);
        assert_eq!(may(Who::User(&none), &ask, &NothingBound).unwrap_err().rule, Rule::Nothing);
        let all = Ask::of(Verb::Delete, "secrets", "", "");
        assert!(may(Who::User(&masters), &all, &NothingBound).is_ok());
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
    fn a_refusal_names_who_what_and_what_would_be_allowed() {
        let ask = Ask::of(Verb::Delete, "pods", "default", "a");
        let denied = may(Who::Client, &ask, &NothingBound).unwrap_err().to_string();
        assert_eq!(
            denied,
            "a client may not delete pods \"default/a\": this role reads everything but secrets and changes nothing"
        );
    }
}
