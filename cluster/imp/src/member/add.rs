//! `imp member add`: makes a node of this machine a control member.
//!
//! Its process is started anew with a certificate of the other role; its containers go on meanwhile.
//! The group takes it in as a learner first, and gives it a vote when it has caught up.

use crate::admin::{Admin, AdminError};
use crate::down::{self, DownError};
use crate::layout::{ClusterDir, LayoutError, NodeFile};
use crate::output::say;
use crate::up::{self, UpError};
use impresario_runtime::pki::PkiError;
use impresario_runtime::{ClusterAuthority, PeerRole};
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;

/// How long the members have to say who leads.
const LEADER_LIMIT: Duration = Duration::from_secs(5);
/// How long the node may take to get its vote; it fetches the whole registry for that.
const VOTE_LIMIT: Duration = Duration::from_mins(2);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(200);

/// Why the node is no control member.
#[derive(Debug, Error)]
pub enum AddError {
    /// A file of the cluster is unusable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// There is no way in.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// There is no such node here.
    #[error(
        "{path} has no node {name}: `imp status` shows the nodes; only those that `imp up` made can be added"
    )]
    NoNode {
        /// What was asked for.
        name: String,
        /// The cluster's folder.
        path: PathBuf,
    },
    /// It is one.
    #[error("{0} is set up as a control member already: `imp up` starts it if it does not run")]
    IsMember(String),
    /// Nobody can let it in.
    #[error("no control member leads: `imp up` starts those that do not run; nothing was changed")]
    NoLeader,
    /// Its process does not end.
    #[error(transparent)]
    Stop(#[from] DownError),
    /// Its certificate could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Its process does not start.
    #[error(transparent)]
    Start(#[from] UpError),
    /// It got no vote.
    #[error(
        "{name} has no vote after {waited:?}; it goes on trying as long as it runs: look into {log}"
    )]
    NoVote {
        /// The node.
        name: String,
        /// For how long it was waited.
        waited: Duration,
        /// Its log.
        log: PathBuf,
    },
}

/// Adds the node and returns when it has a vote.
pub async fn add(dir: &ClusterDir, name: &str) -> Result<(), AddError> {
    let _alone = dir.lock().await?;
    let cluster = dir.cluster()?;
    let node = dir.node(name);
    if !node.exists() {
        return Err(AddError::NoNode { name: name.to_owned(), path: dir.path().to_owned() });
    }
    let file = node.load()?;
    if file.control.is_some() {
        return Err(AddError::IsMember(name.to_owned()));
    }
    let admin = Admin::connect(dir).await?;
    if admin.leader_within(LEADER_LIMIT).await.is_none() {
        return Err(AddError::NoLeader);
    }
    let authority = ClusterAuthority::load(&dir.pki())?;
    let address = file.advertise.ip();
    let credential = up::issue_for(&authority, name, PeerRole::Control, address, &cluster)?;
    // Whatever can be wrong has been found out: only now the node is stopped.
    down::end_process(&node).await?;
    // The certificate first: with it alone the node is what it was, with the file alone it is nothing.
    credential.save(&node.credential())?;
    let control = Some(up::control_file(dir, &cluster, false));
    node.save(&NodeFile { control, ..file })?;
    up::start(&node)?;

    let began = Instant::now();
    while began.elapsed() < VOTE_LIMIT {
        let members = admin.members().await;
        let newest =
            members.into_iter().filter_map(|(_, status)| status).max_by_key(|s| s.revision);
        if let Some(voters) = newest.map(|status| status.voters)
            && voters.iter().any(|voter| voter == name)
        {
            say!("{name} is a control member, one of {}", voters.len());
            if voters.len().is_multiple_of(2) {
                say!(
                    "{} members bear no more losses than {}: add one more",
                    voters.len(),
                    voters.len() - 1
                );
            }
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(AddError::NoVote { name: name.to_owned(), waited: VOTE_LIMIT, log: node.log() })
}
