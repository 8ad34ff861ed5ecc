//! From a request to its answer: who asks, may they, what is it about, do it.
//!
//! Every request passes the same doors in the same order; no handler is reached around them. Which
//! resources and verbs exist is read off the table of resources, never spelt out here.

use crate::answer::{self, Body};
use crate::authenticate::{
    AUTHENTICATED, AuthenticateError, Certificate, TokenReview, User, identify,
};
use crate::authorize::{self, Authorize, Decision, GroupPolicy};
use crate::budget::{Budgets, Share};
use crate::call::{self, Call, ResourceCall};
use crate::discovery;
use crate::limits::{Limits, WORK_PER_BYTE};
use crate::logs::LogSource;
use crate::query::Query;
use crate::readiness::Readiness;
use crate::request::{Action, ResourcePath, Target};
use crate::verbs;
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::{HeaderMap, Request, Response};
use impresario_api::resource::{Verb, find, resources};
use impresario_api::status::{Reason, Status};
use impresario_objects::Objects;
use std::fmt;
use std::sync::Arc;

/// Answers the Kubernetes API over a registry.
pub struct Gateway {
    objects: Objects,
    tokens: Vec<Box<dyn TokenReview>>,
    authorize: Box<dyn Authorize>,
    logs: Arc<dyn LogSource>,
    limits: Limits,
    budgets: Budgets,
    readiness: Readiness,
}

/// What became of a request.
pub(crate) struct Answered {
    /// The answer.
    pub(crate) response: Response<Body>,
    /// Whether who asked showed a credential that is good.
    pub(crate) recognised: bool,
    /// What the answer holds until it is sent.
    pub(crate) share: Share,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("objects", &self.objects)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway to these objects that decides access by group and knows no bearer tokens.
    pub fn new(objects: Objects, logs: Arc<dyn LogSource>) -> Self {
        Self {
            objects,
            tokens: Vec::new(),
            authorize: Box::new(GroupPolicy),
            logs,
            limits: Limits::default(),
            budgets: Budgets::of(&Limits::default()),
            readiness: Readiness::default(),
        }
    }

    /// Also knows the bearer tokens of this source.
    pub fn with_tokens(mut self, tokens: impl TokenReview) -> Self {
        self.tokens.push(Box::new(tokens));
        self
    }

    /// Decides access by other rules.
    pub fn with_authorizer(mut self, authorize: impl Authorize) -> Self {
        self.authorize = Box::new(authorize);
        self
    }

    /// Allows other amounts.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.budgets = Budgets::of(&limits);
        self.limits = limits;
        self
    }

    /// What a server of this gateway allows.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The address by which discovery says that the API is found.
    pub(crate) fn address(&self) -> String {
        format!("{}:443", self.objects.ranges().api_address())
    }

    pub(crate) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    pub(crate) fn logs(&self) -> &Arc<dyn LogSource> {
        &self.logs
    }

    /// Answers one request from a connection with this certificate.
    pub(crate) async fn answer(
        &self,
        certificate: &Certificate,
        request: Request<Incoming>,
    ) -> Answered {
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let pretty = query.flag("pretty");
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let (mut recognised, mut share) = (false, Share::default());
        let outcome = self.admit(certificate, parts, query, body, &mut recognised).await;
        let mut response = outcome.unwrap_or_else(|status| answer::status(&status, pretty));
        let bytes = response.body().size_hint().exact().unwrap_or(0);
        if !self.budgets.answers.grow(&mut share, usize::try_from(bytes).unwrap_or(usize::MAX)) {
            response = answer::status(&busy("answers that are not read yet"), pretty);
        }
        tracing::debug!(%method, path, code = response.status().as_u16(), "answered");
        Answered { response, recognised, share }
    }

    async fn admit(
        &self,
        certificate: &Certificate,
        parts: hyper::http::request::Parts,
        query: Query,
        body: Incoming,
        recognised: &mut bool,
    ) -> Result<Response<Body>, Status> {
        // Two lengths are how a second request is smuggled past a proxy.
        if parts.headers.contains_key(CONTENT_LENGTH)
            && parts.headers.contains_key(TRANSFER_ENCODING)
        {
            return Err(Status::bad_request(
                "a request has one length: content-length or transfer-encoding",
            ));
        }
        let authorization = match parts.headers.get(AUTHORIZATION) {
            Some(value) => Some(value.to_str().map_err(|_| Status::unauthorized())?),
            None => None,
        };
        let user =
            identify(certificate, authorization, &self.tokens).await.map_err(
                |error| match error {
                    AuthenticateError::Wrong(why) => {
                        tracing::info!(why, "a credential was refused");
                        Status::unauthorized()
                    }
                    AuthenticateError::Unavailable(why) => Status::unavailable(why, 1),
                },
            )?;
        *recognised = user.is_in(AUTHENTICATED);
        refuse_impersonation(&user, &parts.headers)?;
        let target = Target::parse(parts.uri.path());
        let method = parts.method.as_str().to_owned();
        self.permit(&user, &method, parts.uri.path(), &target, &query).await?;
        let (bytes, _held) = call::read(&parts, body, &self.limits, &self.budgets.bodies).await?;
        let work = bytes.len().saturating_mul(WORK_PER_BYTE);
        let turn = tokio::time::timeout(self.limits.answer, self.budgets.work.wait(work)).await;
        let _turn = turn.map_err(|_| busy("requests with large bodies"))?;
        let call = Call { parts, query, body: bytes, user };
        let answering = self.dispatch(call, &method, target);
        tokio::time::timeout(self.limits.answer, answering).await.unwrap_or_else(|_| {
            Err(Status::timeout(format!(
                "the request was not answered within {:?}",
                self.limits.answer
            )))
        })
    }

    /// Whether who replaces an object may also make it.
    pub(crate) async fn permit_create(&self, call: &ResourceCall) -> Result<(), Status> {
        let collection = ResourcePath { name: String::new(), ..call.path.clone() };
        let (path, target) = (call.call.parts.uri.path(), Target::Resource(collection));
        self.permit(&call.call.user, "POST", path, &target, &call.call.query).await
    }

    async fn permit(
        &self,
        user: &User,
        method: &str,
        raw_path: &str,
        target: &Target,
        query: &Query,
    ) -> Result<(), Status> {
        let request = match target {
            Target::Resource(path) => authorize::Request::Resource {
                action: path.action(method, query).ok_or_else(no_such_method)?,
                group: path.group.clone(),
                resource: path.plural.clone(),
                subresource: path.subresource.clone(),
                namespace: namespace_of(path),
                name: path.name.clone(),
            },
            _ => authorize::Request::Path {
                method: method.to_ascii_lowercase(),
                path: raw_path.to_owned(),
            },
        };
        let Decision::Deny(reason) = self.authorize.authorize(user, &request).await else {
            return Ok(());
        };
        let why = authorize::refusal(user, &request, &reason);
        tracing::info!(why, "access was refused");
        Err(match target {
            Target::Resource(path) => forbidden(path, &why),
            _ => Status::new(Reason::Forbidden, format!("forbidden: {why}")),
        })
    }

    async fn dispatch(
        &self,
        call: Call,
        method: &str,
        target: Target,
    ) -> Result<Response<Body>, Status> {
        match target {
            Target::Resource(path) => {
                let action = path.action(method, &call.query).ok_or_else(no_such_method)?;
                let resource = find(&path.group, &path.version, &path.plural)
                    .filter(|resource| resource.namespaced || path.namespace.is_empty())
                    .ok_or_else(Status::no_such_path)?;
                if resource.namespaced && path.namespace.is_empty() {
                    if !path.name.is_empty() {
                        return Err(Status::no_such_path());
                    }
                    if !matches!(action, Action::List | Action::Watch) {
                        return Err(Status::method_not_allowed(resource, action.as_str()));
                    }
                }
                let pretty = call.pretty();
                let outcome = self.resource(action, ResourceCall { call, resource, path }).await;
                if resource.deprecated.is_empty() {
                    return outcome;
                }
                let refused = |status| answer::status(&status, pretty);
                let mut response = outcome.unwrap_or_else(refused);
                answer::warn(&mut response, &[resource.deprecated.to_owned()]);
                Ok(response)
            }
            _ if method != "GET" && method != "HEAD" => Err(no_such_method()),
            Target::GroupVersion { group, version } => {
                discovery::group_version(&call, &group, &version)
            }
            Target::Group(group) => discovery::group(&call, &group),
            Target::Path(path) => discovery::path(self, &call, &path).await,
        }
    }

    async fn resource(&self, action: Action, call: ResourceCall) -> Result<Response<Body>, Status> {
        let resource = call.resource;
        let allowed = if call.path.subresource.is_empty() {
            resource.verbs
        } else {
            let found = resource.subresource(&call.path.subresource);
            found.filter(|_| !call.path.name.is_empty()).ok_or_else(Status::no_such_path)?.verbs
        };
        if !allowed.contains(&verb(action)) {
            return Err(Status::method_not_allowed(resource, action.as_str()));
        }
        match (call.path.subresource.as_str(), action) {
            ("" | "status", Action::Get) => verbs::read::get(self, &call).await,
            ("", Action::List) => verbs::read::list(self, &call).await,
            ("", Action::Watch) => verbs::watch::watch(self, &call).await,
            ("", Action::Create) => verbs::write::create(self, &call).await,
            ("" | "status", Action::Update) => verbs::write::update(self, &call).await,
            ("" | "status", Action::Patch) => verbs::write::patch(self, &call).await,
            ("", Action::Delete) => verbs::delete::one(self, &call).await,
            ("", Action::DeleteCollection) => verbs::delete::collection(self, &call).await,
            ("scale", _) => verbs::scale::scale(self, action, &call).await,
            ("log", Action::Get) => verbs::log::log(self, &call).await,
            ("binding", Action::Create) => verbs::pod::bind(self, &call).await,
            ("eviction", Action::Create) => verbs::pod::evict(self, &call).await,
            ("finalize", Action::Update) => verbs::namespace::finalize(self, &call).await,
            _ => Err(Status::method_not_allowed(resource, action.as_str())),
        }
    }
}

fn verb(action: Action) -> Verb {
    match action {
        Action::Get => Verb::Get,
        Action::List => Verb::List,
        Action::Watch => Verb::Watch,
        Action::Create => Verb::Create,
        Action::Update => Verb::Update,
        Action::Patch => Verb::Patch,
        Action::Delete => Verb::Delete,
        Action::DeleteCollection => Verb::DeleteCollection,
    }
}

/// Who asks to act as somebody else must not act as themselves instead: until impersonation works,
/// nobody may. The words are those of a server where it is not granted.
fn refuse_impersonation(user: &User, headers: &HeaderMap) -> Result<(), Status> {
    let Some(name) = headers.keys().find(|name| name.as_str().starts_with("impersonate-")) else {
        return Ok(());
    };
    let resource = match name.as_str() {
        "impersonate-group" => "groups",
        "impersonate-uid" => "uids",
        "impersonate-user" => "users",
        _ => "userextras",
    };
    let whom = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let why = format!(
        "User {:?} cannot impersonate resource {resource:?} in API group \"\" at the cluster scope: \
         impersonation is not served yet, use a credential of the user that is meant",
        user.name
    );
    tracing::info!(user = user.name, whom, "impersonation was refused");
    let message = format!("{resource} {whom:?} is forbidden: {why}");
    Err(Status::new(Reason::Forbidden, message))
}

/// 429: so much is going on that no more is taken for a moment.
pub(crate) fn busy(with: &str) -> Status {
    Status::too_many_requests(format!("the server is busy with {with}: try again"), 1)
}

/// The namespace that a request is about: a namespace is in itself, as Kubernetes has it.
fn namespace_of(path: &ResourcePath) -> String {
    let itself = path.group.is_empty() && path.plural == "namespaces";
    if itself { path.name.clone() } else { path.namespace.clone() }
}

fn no_such_method() -> Status {
    Status::new(
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}

/// Refusals name the resource even where it does not exist, so that they tell nothing about that.
fn forbidden(path: &ResourcePath, why: &str) -> Status {
    let known = resources().iter().find(|row| row.group == path.group && row.plural == path.plural);
    if let Some(resource) = known {
        return Status::forbidden(resource, &path.name, why);
    }
    let mut what = path.plural.clone();
    if !path.group.is_empty() {
        what = format!("{what}.{}", path.group);
    }
    let named = if path.name.is_empty() { String::new() } else { format!(" {:?}", path.name) };
    let mut status = Status::new(Reason::Forbidden, format!("{what}{named} is forbidden: {why}"));
    (status.group, status.kind, status.name) =
        (path.group.clone(), path.plural.clone(), path.name.clone());
    status
}
