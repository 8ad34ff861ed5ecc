//! Who is asking: a client certificate, a bearer token, or nobody.
//!
//! A certificate's common name is the user and its organizations are the groups; machines and guests, whose
//! names others choose, are users of their own. No credential at all is `system:anonymous`; a credential that is wrong is a 401 and never falls back to anonymous.
//! Tokens are kept and compared as SHA-256 digests only: a stolen file or registry gives none away.

use futures_util::future::BoxFuture;
use impresario_client::tokens::{self, StoredToken, hash_token};
use impresario_objects::CatchUp;
use impresario_objects::accounts::ISSUER;
use impresario_objects::may::{MASTERS, NODES, user_of_guest, user_of_node};
use impresario_registry_api::{Consistency, Entry, Key, RegistryHandle};
use impresario_runtime::clock;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The group of everybody who showed a good credential.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of those who showed none.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

/// An identity with its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The groups that it belongs to.
    pub groups: Vec<String>,
    /// What tells it from others that had its name before; empty where nothing does.
    pub uid: String,
    /// What else is known of it.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user with these groups.
    pub fn new<'a>(name: &str, groups: impl IntoIterator<Item = &'a str>) -> Self {
        let groups = groups.into_iter().map(Into::into).collect();
        Self { name: name.into(), groups, uid: String::new(), extra: BTreeMap::new() }
    }

    /// Who shows no credential.
    pub fn anonymous() -> Self {
        Self::new("system:anonymous", [UNAUTHENTICATED])
    }

    /// Whether the user belongs to a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    fn authenticated(mut self) -> Self {
        if !self.is_in(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }
}

/// What the connection's certificate said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// None was shown.
    Absent,
    /// One was shown that our authority did not sign, or that is out of date.
    Wrong(String),
    /// A good one.
    Of(User),
}

/// Why a request is not from whom it claims.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum AuthenticateError {
    /// The credential is wrong.
    #[error("the credential is not valid: {0}")]
    Wrong(String),
    /// The credential could not be looked up; it may be good.
    #[error("the credential could not be checked: {0}; try again")]
    Unavailable(String),
}

/// Whose a token is, and for which of the audiences that it was shown to.
pub type Shown = (User, Vec<String>);

/// Knows bearer tokens.
pub trait TokenReview: Send + Sync + 'static {
    /// The user that a token stands for; `None` if it stands for nobody here.
    fn review<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Option<User>, AuthenticateError>>;

    /// The same, where it is shown to these audiences, and for which of them it is. A token that says nothing of
    /// audiences is for the API.
    fn review_for<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Shown>, AuthenticateError>> {
        Box::pin(async move {
            let api: Vec<String> = audiences.iter().filter(|it| *it == ISSUER).cloned().collect();
            if api.is_empty() {
                return Ok(None);
            }
            Ok(self.review(token).await?.map(|user| (user, api)))
        })
    }
}

/// Whom a token stands for that is shown to these audiences, and for which of them it is.
pub async fn identify_for(
    token: &str,
    audiences: &[String],
    tokens: &[Arc<dyn TokenReview>],
) -> Result<(User, Vec<String>), AuthenticateError> {
    for known in tokens {
        if let Some((user, audiences)) = known.review_for(token, audiences).await? {
            return Ok((user.authenticated(), audiences));
        }
    }
    Err(AuthenticateError::Wrong("the bearer token is not known".into()))
}

/// Decides who asks: the token when there is one, else the certificate, else nobody.
pub async fn identify(
    certificate: &Certificate,
    authorization: Option<&str>,
    tokens: &[Arc<dyn TokenReview>],
) -> Result<User, AuthenticateError> {
    if let Some(header) = authorization {
        let token = header
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| !token.is_empty())
            .ok_or_else(|| AuthenticateError::Wrong("only bearer tokens are accepted".into()))?;
        for known in tokens {
            if let Some(user) = known.review(token).await? {
                return Ok(user.authenticated());
            }
        }
        return Err(AuthenticateError::Wrong("the bearer token is not known".into()));
    }
    match certificate {
        Certificate::Of(user) => Ok(user.clone().authenticated()),
        Certificate::Wrong(why) => Err(AuthenticateError::Wrong(why.clone())),
        Certificate::Absent => Ok(User::anonymous()),
    }
}

/// Reads the user out of a certificate whose signature was already checked.
pub fn user_of(der: &[u8]) -> Result<User, AuthenticateError> {
    let wrong = |why: &str| AuthenticateError::Wrong(format!("client certificate: {why}"));
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| wrong("it cannot be read"))?;
    let subject = certificate.subject();
    let name = subject
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .filter(|name| !name.is_empty())
        .ok_or_else(|| wrong("it names nobody (no common name)"))?;
    let mut groups: Vec<String> = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok().map(ToOwned::to_owned))
        .collect();
    let has = |organization: &str| groups.iter().any(|group| group == organization);
    let is_node = has("impresario:node") || has("impresario:control");
    let name = match () {
        () if is_node => user_of_node(name),
        () if has("impresario:guest") => user_of_guest(name),
        () => name.to_owned(),
    };
    // Of the cluster's own certificates the administrators' alone rule here. Control members write
    // through their registry, under their fence; what a stolen key of theirs could do over REST
    // they never need.
    if has("impresario:admin") {
        groups.push(MASTERS.into());
    }
    if is_node {
        groups.push(NODES.into());
    }
    Ok(User { groups, ..User::new(&name, []) })
}

/// When a certificate ends, in seconds of the Unix epoch.
pub(crate) fn ends_at(der: &[u8]) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

/// Tokens of a file, read once.
///
/// One token a line: `SHA256-HEX USER [GROUP,GROUP…]`; empty lines and lines that open with `#` are
/// skipped.
#[derive(Debug, Clone, Default)]
pub struct HashedTokens {
    users: HashMap<String, User>,
}

/// Why a token file cannot be used.
#[derive(Debug, Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("token file {path}: {source}: check that it exists and may be read")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not as it should be.
    #[error(
        "token file {path}, line {line}: expected `SHA256-HEX USER [GROUP,…]`: correct or remove the line"
    )]
    Line {
        /// The file.
        path: String,
        /// The line, counted from one.
        line: usize,
    },
}

impl HashedTokens {
    /// Reads a token file.
    pub fn load(path: &Path) -> Result<Self, TokenFileError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokenFileError::Io { path: shown.clone(), source })?;
        let mut known = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(hash), Some(user), groups, None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(TokenFileError::Line { path: shown, line: number + 1 });
            };
            if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(TokenFileError::Line { path: shown, line: number + 1 });
            }
            let groups = groups.unwrap_or_default().split(',').filter(|group| !group.is_empty());
            known.users.insert(hash.to_ascii_lowercase(), User::new(user, groups));
        }
        Ok(known)
    }

    /// Adds one token.
    pub fn insert(&mut self, token: &str, user: User) {
        self.users.insert(hash_token(token), user);
    }
}

impl TokenReview for HashedTokens {
    fn review<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Option<User>, AuthenticateError>> {
        let user = self.users.get(&hash_token(token)).cloned();
        Box::pin(std::future::ready(Ok(user)))
    }
}

/// Tokens that are kept in the registry.
///
/// A token that this member knows is looked up here. One that it does not may be a new one: then the
/// registry is asked how far it has come, once for all who wait for it at that moment, so that tokens
/// that somebody made up cost the cluster one question after another and never many.
#[derive(Clone)]
pub struct RegistryTokens {
    registry: RegistryHandle,
    caught_up: CatchUp,
}

impl RegistryTokens {
    /// Looks tokens up in this registry.
    pub fn new(registry: RegistryHandle) -> Self {
        Self { registry, caught_up: CatchUp::default() }
    }

    /// What is there under a key, as far as this member knows.
    async fn get(&self, key: Key) -> Result<Option<Entry>, AuthenticateError> {
        let read = self.registry.get(key, Consistency::Local).await;
        Ok(read.map_err(|error| AuthenticateError::Unavailable(error.to_string()))?.0)
    }

    /// Who a token stands for, as far as this member knows.
    async fn look(&self, token: &Key) -> Result<Option<User>, AuthenticateError> {
        let Some(entry) = self.get(token.clone()).await? else { return Ok(None) };
        let stored: StoredToken = serde_json::from_slice(&entry.value)
            .map_err(|_| AuthenticateError::Wrong("the stored token cannot be read".into()))?;
        if stored.expires.is_some_and(|end| end <= clock::timestamp().as_second()) {
            return Err(AuthenticateError::Wrong("the bearer token has expired".into()));
        }
        if let Some(pod) = &stored.pod {
            let found = self.get(Key::new("pods", &pod.namespace, &pod.name)).await?;
            let object: serde_json::Value = match found {
                Some(entry) => serde_json::from_slice(&entry.value).map_err(|_| {
                    AuthenticateError::Wrong("the token's pod cannot be read".into())
                })?,
                None => serde_json::Value::Null,
            };
            if object["metadata"]["uid"] != pod.uid {
                return Err(AuthenticateError::Wrong("the token's pod is gone".into()));
            }
        }
        let extra = stored.pod.into_iter().flat_map(|pod| {
            [("pod-name", pod.name), ("pod-uid", pod.uid)]
                .map(|(key, value)| (format!("authentication.kubernetes.io/{key}"), vec![value]))
        });
        let user = User::new(&stored.user, []);
        Ok(Some(User { groups: stored.groups, extra: extra.collect(), ..user }))
    }

    /// Waits until this member has everything that was written before the call.
    async fn catch_up(&self, key: &Key) -> Result<(), AuthenticateError> {
        let caught_up = self.caught_up.wait(&self.registry, key).await;
        caught_up.map_err(AuthenticateError::Unavailable)
    }
}

impl TokenReview for RegistryTokens {
    fn review<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Option<User>, AuthenticateError>> {
        Box::pin(async move {
            let key = tokens::key(&hash_token(token));
            match self.look(&key).await {
                Ok(Some(user)) => Ok(Some(user)),
                // It, or its pod, may be newer than what this member has.
                Ok(None) | Err(_) => {
                    self.catch_up(&key).await?;
                    self.look(&key).await
                }
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub(crate) mod tests {
    use super::*;
    use impresario_registry::MemoryRegistry;
    use impresario_registry_api::{Around, Operation, ReadError, Registry, Revision, Transaction};
    use std::sync::atomic::{AtomicUsize, Ordering};

    async fn asks(
        certificate: &Certificate,
        header: Option<&str>,
    ) -> Result<User, AuthenticateError> {
        let mut tokens = HashedTokens::default();
        tokens.insert("s3cret", User::new("robot", ["impresario:viewers"]));
        identify(certificate, header, &[Arc::new(tokens)]).await
    }

    #[tokio::test]
    async fn a_wrong_credential_is_refused_and_none_is_anonymous() {
        let nobody = asks(&Certificate::Absent, None).await;
        assert_eq!(nobody, Ok(User::anonymous()));

        let robot = asks(&Certificate::Absent, Some("Bearer s3cret")).await.map(|user| user.name);
        assert_eq!(robot.as_deref(), Ok("robot"));

        for wrong in ["Bearer other", "Basic czNjcmV0", "Bearer "] {
            assert!(asks(&Certificate::Absent, Some(wrong)).await.is_err(), "{wrong}");
        }
        assert!(asks(&Certificate::Wrong("expired".into()), None).await.is_err());
    }

    /// A member that has not everything that was written, and counts the questions to the others.
    #[derive(Default)]
    pub(crate) struct Lagging {
        whole: MemoryRegistry,
        here: MemoryRegistry,
        asked: AtomicUsize,
    }

    impl Lagging {
        pub(crate) fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    impl Around for Lagging {
        fn inner(&self) -> &dyn Registry {
            &self.whole
        }

        fn get(&self, key: Key, consistency: Consistency) -> Read<'_> {
            if consistency == Consistency::Local {
                return self.here.get(key, consistency);
            }
            self.asked.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                tokio::task::yield_now().await;
                let (entry, revision) = self.whole.get(key.clone(), consistency).await?;
                if let Some(entry) = &entry {
                    let put = Operation::Put { key, value: entry.value.clone() };
                    let written = Transaction { operations: vec![put], ..Transaction::default() };
                    self.here.transact(written).await.unwrap();
                }
                Ok((entry, revision))
            })
        }
    }

    type Read<'a> = BoxFuture<'a, Result<(Option<Entry>, Revision), ReadError>>;

    #[tokio::test]
    async fn made_up_tokens_cost_few_questions_together_and_a_new_one_is_found() {
        let registry = Arc::new(Lagging::default());
        let stored =
            StoredToken { user: "robot".into(), groups: Vec::new(), expires: None, pod: None };
        let value = serde_json::to_vec(&stored).unwrap().into();
        let put = Operation::Put { key: tokens::key(&hash_token("new")), value };
        let written = Transaction { operations: vec![put], ..Transaction::default() };
        registry.whole.transact(written).await.unwrap();
        let tokens = RegistryTokens::new(registry.clone());
        let guesses: Vec<String> = (0..100).map(|number| format!("guess-{number}")).collect();
        let all = guesses.iter().map(|guess| tokens.review(guess));
        for outcome in futures_util::future::join_all(all).await {
            assert_eq!(outcome, Ok(None));
        }
        // The one that was under way, and one for all who came meanwhile.
        assert_eq!(registry.asked(), 2);
        for _ in 0..2 {
            let found = tokens.review("new").await.unwrap().unwrap();
            assert_eq!(found.name, "robot");
        }
        assert_eq!(registry.asked(), 3, "the second time it is known here");
    }

    #[test]
    fn a_token_file_with_a_broken_line_is_refused_by_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let good = format!("# who may\n{} ann system:masters,x\n", hash_token("t"));
        std::fs::write(&path, &good).unwrap();
        assert_eq!(HashedTokens::load(&path).unwrap().users.len(), 1);

        std::fs::write(&path, format!("{good}plain-text ann\n")).unwrap();
        assert!(matches!(HashedTokens::load(&path), Err(TokenFileError::Line { line: 3, .. })));
    }
}
