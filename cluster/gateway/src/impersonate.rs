//! Acting as somebody else: what the headers ask for, and what it takes to be allowed to.
//!
//! As Kubernetes' `filters/impersonation.go`: for the user, for each group, for the uid and for each extra value there
//! must be a rule with the verb `impersonate`.

use crate::authenticate::{AUTHENTICATED, UNAUTHENTICATED, User};
use crate::query::decode;
use hyper::HeaderMap;
use impresario_api::status::Status;
use impresario_objects::rbac::{Asked, account};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
/// What headers begin with that say more; the rest is the key.
const EXTRA: &str = "impersonate-extra-";
const ANONYMOUS: &str = "system:anonymous";
/// The group of uids and extra values in rules.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// One thing that must be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    group: &'static str,
    resource: &'static str,
    subresource: String,
    namespace: String,
    /// Whom or what it is about.
    pub name: String,
}

impl Need {
    /// The question.
    pub fn asked(&self) -> Asked<'_> {
        Asked::Resource {
            verb: "impersonate",
            group: self.group,
            resource: self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
        }
    }

    /// The resource with its group, as refusals name it.
    pub fn what(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        format!("{}{dot}{}", self.resource, self.group)
    }
}

/// As whom the headers ask to act, and what that takes; nothing where they ask for nothing.
pub fn wanted(headers: &HeaderMap) -> Result<Option<(User, Vec<Need>)>, Status> {
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(None);
    }
    let texts = |name: &str| -> Result<Vec<String>, Status> {
        let values = headers.get_all(name).iter();
        let texts = values.map(|value| value.to_str().map(ToOwned::to_owned));
        let why = |_| Status::bad_request(format!("the header {name} is no text"));
        texts.collect::<Result<_, _>>().map_err(why)
    };
    let one = |name: &str| -> Result<String, Status> {
        Ok(texts(name)?.into_iter().next().unwrap_or_default())
    };
    let mut user = User::new(&one(USER)?, []);
    user.groups = texts(GROUP)?;
    user.uid = one(UID)?;
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
        user.extra.insert(decode(key, false), texts(name.as_str())?);
    }
    if user.name.is_empty() {
        let why = "groups, a uid or extra values are impersonated without a user: send Impersonate-User, too";
        return Err(Status::bad_request(why));
    }
    let needs = needs(&user);
    complete(&mut user);
    Ok(Some((user, needs)))
}

/// What must be allowed to act as this user, of whom the headers say all.
fn needs(user: &User) -> Vec<Need> {
    let of = |group, resource, name: &str| Need {
        group,
        resource,
        subresource: String::new(),
        namespace: String::new(),
        name: name.to_owned(),
    };
    let whom = match account(&user.name) {
        Some((namespace, name)) => {
            Need { namespace: namespace.to_owned(), ..of("", "serviceaccounts", name) }
        }
        None => of("", "users", &user.name),
    };
    let groups = user.groups.iter().map(|group| of("", "groups", group));
    let uid = Some(&user.uid).filter(|uid| !uid.is_empty());
    let uid = uid.map(|uid| of(AUTHENTICATION, "uids", uid));
    let extra = user.extra.iter().flat_map(|(key, values)| {
        values.iter().map(move |value| Need {
            subresource: key.clone(),
            ..of(AUTHENTICATION, "userextras", value)
        })
    });
    [whom].into_iter().chain(groups).chain(uid).chain(extra).collect()
}

/// Adds the groups that every such user has.
fn complete(user: &mut User) {
    if user.groups.is_empty()
        && let Some((namespace, _)) = account(&user.name)
    {
        user.groups =
            vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let own = if user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !user.is_in(own) && !user.is_in(UNAUTHENTICATED) {
        user.groups.push(own.into());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        });
        let mut headers = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    #[test]
    fn each_thing_that_is_impersonated_is_a_question_of_its_own() {
        let asked = headers(&[
            ("Impersonate-User", "ann"),
            ("Impersonate-Group", "dev"),
            ("impersonate-group", "ops"),
            ("Impersonate-Uid", "u-1"),
            ("Impersonate-Extra-example.com%2Fscope", "view"),
        ]);
        let (user, needs) = wanted(&asked).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("ann", "u-1"));
        assert_eq!(user.groups, ["dev", "ops", AUTHENTICATED]);
        assert_eq!(user.extra["example.com/scope"], ["view"]);
        let told: Vec<String> = needs
            .iter()
            .map(|need| format!("{} {} {}", need.what(), need.subresource, need.name))
            .collect();
        let expected = [
            "users  ann",
            "groups  dev",
            "groups  ops",
            "uids.authentication.k8s.io  u-1",
            "userextras.authentication.k8s.io example.com/scope view",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn an_account_is_one_with_its_groups_and_nobody_is_anonymous() {
        let asked = headers(&[("Impersonate-User", "system:serviceaccount:a:bot")]);
        let (user, needs) = wanted(&asked).unwrap().unwrap();
        let groups = ["system:serviceaccounts", "system:serviceaccounts:a", AUTHENTICATED];
        assert_eq!(user.groups, groups);
        assert_eq!((needs[0].resource, needs[0].namespace.as_str()), ("serviceaccounts", "a"));
        let (nobody, _) = wanted(&headers(&[("Impersonate-User", ANONYMOUS)])).unwrap().unwrap();
        assert_eq!(nobody.groups, [UNAUTHENTICATED]);
    }

    #[test]
    fn who_impersonates_nobody_or_half_of_somebody_is_told() {
        assert_eq!(wanted(&headers(&[("accept", "*/*")])), Ok(None));
        for half in ["Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-Scope"] {
            assert_eq!(wanted(&headers(&[(half, "x")])).unwrap_err().code(), 400, "{half}");
        }
    }
}
