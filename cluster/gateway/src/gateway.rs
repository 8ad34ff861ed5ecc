//! What a gateway is made of, and what each of its parts may take of it.

mod access;
mod dispatch;

use crate::authenticate::TokenReview;
use crate::brief::brief;
use crate::budget::{Budgets, Share, Unread};
use crate::busy::busy;
use crate::call::Call;
use crate::limits::Limits;
use crate::logs::LogSource;
use crate::readiness::Readiness;
use crate::sessions::SessionSource;
use crate::trust;
use crate::turns::{AllTurns, Turns};
use crate::usage::{NothingKnown, UsageSource};
use crate::work::Work;
use impresario_api::status::Status;
use impresario_objects::accounts::Accounts;
use impresario_objects::rbac::Roles;
use impresario_objects::{Objects, Refusals};
use impresario_runtime::clock;
use std::fmt;
use std::sync::Arc;

/// What is kept of a watch's selector, in bytes, that is had with its place: an ordinary one is a hundredth of it.
const STREAM_BYTES: usize = 8 * 1024;

/// Answers the Kubernetes API over a registry.
pub struct Gateway {
    objects: Objects,
    tokens: Vec<Arc<dyn TokenReview>>,
    roles: Roles,
    logs: Arc<dyn LogSource>,
    sessions: Option<Arc<dyn SessionSource>>,
    usage: Arc<dyn UsageSource>,
    limits: Limits,
    budgets: Budgets,
    work: Arc<Work>,
    turns: AllTurns,
    readiness: Readiness,
    refusals: Arc<Refusals>,
    accounts: Option<Accounts>,
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
    /// A gateway to these objects that decides access by these roles and knows no bearer tokens.
    pub fn new(objects: Objects, roles: Roles, logs: Arc<dyn LogSource>) -> Self {
        let limits = Limits::default();
        Self {
            objects: objects.guarded(roles.clone()),
            tokens: Vec::new(),
            roles,
            logs,
            sessions: None,
            usage: Arc::new(NothingKnown),
            budgets: Budgets::of(&limits),
            work: Arc::new(Work::of(&limits)),
            turns: AllTurns::new(),
            limits,
            readiness: Readiness::default(),
            refusals: Arc::default(),
            accounts: None,
        }
    }

    /// Also knows the bearer tokens of this source.
    pub fn with_tokens(mut self, tokens: impl TokenReview) -> Self {
        self.tokens.push(Arc::new(tokens));
        self
    }

    /// Opens sessions with pods by this source; without one there are none.
    pub fn with_sessions(mut self, sessions: impl SessionSource) -> Self {
        self.sessions = Some(Arc::new(sessions));
        self
    }

    /// Makes tokens of service accounts by these, and knows them.
    pub fn with_accounts(self, accounts: Accounts) -> Self {
        Self { accounts: Some(accounts.clone()), ..self.with_tokens(accounts) }
    }

    /// Counts refusals here.
    pub fn with_refusals(mut self, refusals: Arc<Refusals>) -> Self {
        self.refusals = refusals;
        self
    }

    /// Tells what is used by this.
    pub fn with_usage(mut self, usage: Arc<dyn UsageSource>) -> Self {
        self.usage = usage;
        self
    }

    /// Allows other amounts.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.budgets = Budgets::of(&limits);
        self.work = Arc::new(Work::of(&limits));
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

    pub(crate) fn accounts(&self) -> Option<&Accounts> {
        self.accounts.as_ref()
    }

    pub(crate) fn tokens(&self) -> &[Arc<dyn TokenReview>] {
        &self.tokens
    }

    pub(crate) fn roles(&self) -> &Roles {
        &self.roles
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

    pub(crate) fn sessions(&self) -> Result<&Arc<dyn SessionSource>, Status> {
        let none = || Status::unavailable("this server opens no sessions with pods", 1);
        self.sessions.as_ref().ok_or_else(none)
    }

    pub(crate) fn usage(&self) -> &Arc<dyn UsageSource> {
        &self.usage
    }

    /// Counts a refusal of somebody in this role. Whether it is to be logged, too, and then how many of theirs for the
    /// same reason went unsaid before it: the log lies on the disk of the registry, and anybody can be refused.
    pub(crate) fn count_refusal(&self, role: &str, name: &str, rule: &str) -> Option<u64> {
        self.refusals.count(role, rule);
        self.refusals.is_to_be_logged(&format!("{rule} of {}", brief(name)), clock::now())
    }

    /// One of the watches, logs and sessions that may be sent at a time, given back when dropped; more of them where so many
    /// bytes are held for what is asked.
    pub(crate) fn stream(&self, call: &Call, held: usize) -> Result<Share, Status> {
        self.streams(call)(held)
    }

    /// The same, as often as this user opens one more while the first is sent.
    pub(crate) fn streams(
        &self,
        call: &Call,
    ) -> impl Fn(usize) -> Result<Share, Status> + Send + Sync + use<> {
        let (budget, asks) = (self.budgets.streams.clone(), call.asks.clone());
        move |held| {
            let mut share = budget.share(&asks);
            share
                .grow(1 + held / STREAM_BYTES)
                .map_err(|_| busy("watches, logs and sessions, of all or of this user"))?;
            Ok(share)
        }
    }

    /// What a listing may hold of what its client has not read yet.
    pub(crate) fn unread(&self, call: &Call) -> Unread {
        self.budgets.unread(&call.asks)
    }

    /// The turns in which long answers to this user are made.
    pub(crate) fn turns(&self, call: &Call) -> Turns {
        self.turns.of_user(call.asks.clone())
    }

    /// A share of the answers that wait to be read, with nothing in it yet.
    pub(crate) fn waiting(&self, call: &Call) -> Share {
        self.budgets.answers.share(&call.asks)
    }

    /// Resolves when a stream must end because its token is not good any more.
    pub(crate) fn distrusts(&self, call: &Call) -> impl Future<Output = ()> + Send + 'static {
        let (header, user) = (call.authorization.clone(), call.asks.name().to_owned());
        trust::ends(header, user, self.tokens.clone(), trust::EVERY)
    }
}
