//! `imp token create`: a token, and the command for the machine that joins with it.

use crate::admin::{Admin, AdminError};
use crate::cli::TokenRole;
use crate::layout::{ClusterDir, LayoutError};
use crate::output::say;
use crate::structured::Structured;
use impresario_client::protocol::authority::{
    AUTHORITY, AuthorityRole, CreateToken, JoinRole, TokenError,
};
use impresario_runtime::{ActorPath, AskError, NodeName};
use serde_json::json;
use std::time::Duration;
use thiserror::Error;

/// How long a member has to make a token.
const LIMIT: Duration = Duration::from_secs(10);

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenCommandError {
    /// There is no way in.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// No member answered.
    #[error("no control member answers ({0}): `imp status` shows what runs")]
    Ask(AskError),
    /// No member runs.
    #[error("no control member was set up here: make tokens where `imp up` ran")]
    NoMember,
    /// A file of the cluster is unusable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The authority refused.
    #[error(transparent)]
    Refused(#[from] TokenError),
}

/// Makes a token and prints it.
pub async fn create(
    dir: &ClusterDir,
    ttl: Duration,
    role: TokenRole,
    output: Option<Structured>,
) -> Result<(), TokenCommandError> {
    let admin = Admin::connect(dir).await?;
    let role = match role {
        TokenRole::Node => JoinRole::Node,
        TokenRole::Client => JoinRole::Client,
    };
    let mut last = TokenCommandError::NoMember;
    for node in admin.nodes.iter().filter(|node| node.control.is_some()) {
        let path = ActorPath::new(NodeName::from(node.name.as_str()), AUTHORITY);
        let authority = admin.client.actor::<AuthorityRole>(path);
        match authority.ask(CreateToken { role, ttl }, LIMIT).await {
            Ok(created) => {
                let created = created?;
                let address = node.advertise;
                match output {
                    Some(Structured::Json) => say!(
                        "{:#}",
                        json!({
                            "token": created.token,
                            "id": created.id,
                            "address": address.to_string(),
                            "expiresUnixSeconds": created.expires_unix_seconds,
                        })
                    ),
                    None => {
                        say!("{}", created.token);
                        eprintln!(
                            "\nGood for one machine. There, run:\n  imp node --join {address} --token TOKEN --data-dir DIR\n\
                             with an address of this machine in place of {} where it is another one.",
                            address.ip()
                        );
                    }
                }
                let listen = dir.cluster()?.listen;
                if listen.is_loopback() {
                    eprintln!(
                        "\nThis cluster listens on {listen} alone: only programs of this machine can join it. For \
                         others, make one with `imp up --listen ADDRESS`."
                    );
                }
                return Ok(());
            }
            Err(error) => last = TokenCommandError::Ask(error),
        }
    }
    Err(last)
}
