//! From a request to its answer: who asks, may they, what is it about, do it.
//!
//! Every request passes the same doors in the same order; no handler is reached around them. Which
//! resources and verbs exist is read off the table of resources, never spelt out here.

use super::Gateway;
use crate::aim::{Aim, aim};
use crate::answer::{self, Body};
use crate::authenticate::{AUTHENTICATED, AuthenticateError, Certificate, User, identify};
use crate::brief::brief;
use crate::budget::{self, Holder, Share};
use crate::busy::{busy, unread};
use crate::call::{self, Call, ResourceCall};
use crate::discovery;
use crate::query::Query;
use crate::request::{Action, Target};
use crate::verbs;
use crate::work::Load;
use futures_util::FutureExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Request, Response};
use impresario_api::status::Status;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// What became of a request.
pub(crate) struct Answered {
    /// The answer.
    pub(crate) response: Response<Body>,
    /// What the answer holds until it is sent.
    pub(crate) share: Option<Share>,
}

/// Told who asks, as soon as a good credential has been shown.
pub(crate) type Recognise<'a> = &'a (dyn Fn(&Holder) + Sync);

/// A request that has passed all doors, with its body.
struct Admitted {
    call: Call,
    aim: Aim,
    load: Load,
}

impl Gateway {
    /// Answers one request from a connection with this certificate.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        certificate: &Certificate,
        request: Request<Incoming>,
        recognise: Recognise<'_>,
    ) -> Answered {
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let pretty = query.flag("pretty");
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let mut asks = Holder::of(&User::anonymous());
        let outcome = self.carry_out(certificate, parts, query, body, recognise, &mut asks);
        let outcome = AssertUnwindSafe(outcome).catch_unwind().await.unwrap_or_else(|_| {
            let path = brief(&path);
            tracing::error!(%method, path, user = asks.name(), "the answer to a request panicked");
            Err(Status::internal(
                "the request could not be answered: the log of the server says where",
            ))
        });
        let mut response = outcome.unwrap_or_else(|status| answer::status(&status, pretty));
        let bytes = response.body().size_hint().exact().unwrap_or(0);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut share = None;
        if bytes > budget::SMALL {
            let mut wanted = self.budgets.answers.share(&asks);
            match wanted.grow(bytes) {
                Ok(()) => share = Some(wanted),
                Err(over) if method.is_safe() => response = answer::status(&unread(over), pretty),
                // It has been done: who is told to try again would do it again.
                Err(_) if bytes <= self.limits.body_bytes => {}
                Err(_) => response = answer::json(200, &done(), pretty),
            }
        }
        tracing::debug!(%method, path, code = response.status().as_u16(), "answered");
        Answered { response, share }
    }

    async fn carry_out(
        self: &Arc<Self>,
        certificate: &Certificate,
        parts: Parts,
        query: Query,
        body: Incoming,
        recognise: Recognise<'_>,
        asks: &mut Holder,
    ) -> Result<Response<Body>, Status> {
        let user = self.identify(certificate, &parts).await?;
        *asks = Holder::of(&user);
        let known = user.is_in(AUTHENTICATED);
        if known {
            recognise(asks);
        }
        let mut held = self.budgets.bodies.share(asks);
        let limit = if known {
            self.limits.answer
        } else {
            self.limits.answer.min(self.limits.stranger_answer)
        };
        let late = move || {
            let why = format!("the request was not answered within {limit:?}");
            Err(Status::timeout(why))
        };
        // A body has its own time, and the wait for a turn another one.
        let admitted = self.admit(user, parts, query, body, &mut held).await?;
        let turn = tokio::time::timeout(limit, self.work.turn(admitted.load)).await;
        let turn = turn.map_err(|_| busy("requests with large bodies"))?;
        let this = Arc::clone(self);
        let load = admitted.load;
        let answering = async move {
            let _holds = (turn, held);
            tokio::time::timeout(limit, this.dispatch(admitted)).await.unwrap_or_else(|_| late())
        };
        match load {
            Load::Small(_) => answering.await,
            Load::Large(_) => match self.work.beside(answering).await {
                Ok(outcome) => outcome,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => Err(Status::unavailable("the server is stopping", 1)),
            },
        }
    }

    /// Who asks.
    async fn identify(&self, certificate: &Certificate, parts: &Parts) -> Result<User, Status> {
        let refused = |why: &str| {
            if let Some(unsaid) = self.count_refusal("stranger", "", "Credential") {
                tracing::info!(why = brief(why), unsaid, "a credential was refused");
            }
            Status::unauthorized()
        };
        let authorization = match parts.headers.get(AUTHORIZATION) {
            Some(value) => Some(value.to_str().map_err(|_| refused("it is no text"))?),
            None => None,
        };
        let identified = identify(certificate, authorization, &self.tokens);
        match tokio::time::timeout(self.limits.identify, identified).await {
            Ok(Ok(user)) => Ok(user),
            Ok(Err(AuthenticateError::Wrong(why))) => Err(refused(&why)),
            Ok(Err(AuthenticateError::Unavailable(why))) => Err(Status::unavailable(why, 1)),
            Err(_) => {
                let why =
                    format!("the credential was not checked within {:?}", self.limits.identify);
                Err(Status::unavailable(why, 1))
            }
        }
    }

    /// Whether the request may be and can be done; only then its body is read.
    async fn admit(
        &self,
        user: User,
        parts: Parts,
        query: Query,
        body: Incoming,
        held: &mut Share,
    ) -> Result<Admitted, Status> {
        // Two lengths are how a second request is smuggled past a proxy.
        if parts.headers.contains_key(CONTENT_LENGTH)
            && parts.headers.contains_key(TRANSFER_ENCODING)
        {
            return Err(Status::bad_request(
                "a request has one length: content-length or transfer-encoding",
            ));
        }
        let asks = Holder::of(&user);
        let user = self.acting(user, &parts.headers)?;
        let target = Target::parse(parts.uri.path());
        let method = parts.method.as_str();
        self.permit(&user, method, parts.uri.path(), &target, &query)?;
        let aim = aim(target, method, &query)?;
        let body = call::read(&parts, body, aim.needs(), &self.limits, held).await?;
        let authorization = parts.headers.get(AUTHORIZATION);
        let authorization = authorization.and_then(|it| it.to_str().ok()).map(ToOwned::to_owned);
        let call = Call { parts, query, body, asks, user, authorization };
        let load = Load::of(call.content_type(), &call.body);
        Ok(Admitted { call, aim, load })
    }

    async fn dispatch(&self, admitted: Admitted) -> Result<Response<Body>, Status> {
        let Admitted { call, aim, .. } = admitted;
        match aim {
            Aim::Resource { action, resource, path } => {
                let pretty = call.pretty();
                let deprecated = resource.deprecated.clone();
                let writes = path.subresource.is_empty()
                    && matches!(action, Action::Create | Action::Update | Action::Patch);
                let not_enforced = resource.not_enforced().filter(|_| writes);
                let mut outcome =
                    self.resource(action, ResourceCall { call, resource, path }).await;
                if let (Ok(response), Some(told)) = (&mut outcome, not_enforced) {
                    answer::warn(response, &[told]);
                }
                if deprecated.is_empty() {
                    return outcome;
                }
                let refused = |status| answer::status(&status, pretty);
                let mut response = outcome.unwrap_or_else(refused);
                answer::warn(&mut response, &[deprecated.into_owned()]);
                Ok(response)
            }
            Aim::Other(Target::GroupVersion { group, version }) => {
                discovery::group_version(&call, &group, &version)
            }
            Aim::Other(Target::Group(group)) => discovery::group(&call, &group),
            Aim::Other(Target::Path(path)) => discovery::path(self, &call, &path).await,
            Aim::Other(Target::Resource(_)) => Err(Status::no_such_path()),
        }
    }

    async fn resource(&self, action: Action, call: ResourceCall) -> Result<Response<Body>, Status> {
        let resource = &call.resource;
        match (call.path.subresource.as_str(), action) {
            ("", Action::Get) if !resource.is_kept => verbs::metrics::get(self, &call).await,
            ("", Action::List) if !resource.is_kept => verbs::metrics::list(self, &call).await,
            ("" | "status" | "approval", Action::Get) => verbs::read::get(self, &call).await,
            ("", Action::List) => verbs::read::list(self, &call).await,
            ("", Action::Watch) => verbs::watch::watch(self, &call).await,
            ("", Action::Create) if resource.kind == "TokenReview" => {
                verbs::token::review(self, &call).await
            }
            ("", Action::Create) if !resource.is_kept => verbs::review::create(self, &call),
            ("", Action::Create) => verbs::write::create(self, &call).await,
            ("" | "status" | "approval", Action::Update) => verbs::write::update(self, &call).await,
            ("" | "status", Action::Patch) if call.call.applies() => {
                verbs::apply::apply(self, &call).await
            }
            ("" | "status" | "approval", Action::Patch) => verbs::write::patch(self, &call).await,
            ("", Action::Delete) => verbs::delete::one(self, &call).await,
            ("", Action::DeleteCollection) => verbs::delete::collection(self, &call).await,
            ("scale", _) => verbs::scale::scale(self, action, &call).await,
            ("log", Action::Get) => verbs::log::log(self, &call).await,
            ("exec", Action::Create) => verbs::stream::exec(self, &call).await,
            ("attach", Action::Create) => verbs::stream::attach(self, &call).await,
            ("portforward", Action::Create) => verbs::stream::port_forward(self, &call).await,
            ("binding", Action::Create) => verbs::pod::bind(self, &call).await,
            ("eviction", Action::Create) => verbs::pod::evict(self, &call).await,
            ("token", Action::Create) => verbs::token::create(self, &call).await,
            ("finalize", Action::Update) => verbs::namespace::finalize(self, &call).await,
            _ => Err(Status::method_not_allowed(resource, action.as_str())),
        }
    }
}

/// What is answered to a write in place of a long list of what was written.
fn done() -> serde_json::Value {
    serde_json::json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "message": "done; what was written is not told: too many answers are not read yet",
        "code": 200,
    })
}
