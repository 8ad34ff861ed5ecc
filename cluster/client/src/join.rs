//! Joining a cluster as a client: a token becomes a credential in a folder, once; from then on the
//! folder is enough.
//!
//! ```text
//! DIR/credential/    certificate and key (0600)
//! DIR/client.json    the control members, and the machine through which it joined
//! ```

use crate::address::reachable;
use crate::client::{Client, ConnectError};
use crate::keeper::{Home, Kept, credential_in, file_in};
use impresario_runtime::{Credential, JoinToken, NodeName, PeerRole};
use jiff::Timestamp;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How long the cluster has to answer.
const JOIN_LIMIT: Duration = Duration::from_secs(20);

impl Client {
    /// Joins the cluster that answers at `address` (as printed by `imp token create --role client`)
    /// and keeps the credential in `folder`. A folder that holds one already is opened instead, and
    /// the token is not used, unless its certificate has ended: a program may call this at every start.
    ///
    /// Must be called inside an actix system.
    pub async fn join(
        address: &str,
        token: &str,
        name: Option<String>,
        folder: &Path,
    ) -> Result<Self, ConnectError> {
        if file_in(folder).exists() {
            match Self::open(folder).await {
                Err(ended @ ConnectError::Expired { .. }) => {
                    tracing::info!(%ended, "the token is used");
                }
                opened => return opened,
            }
        }
        let bad = || ConnectError::Address(address.to_owned());
        let target = tokio::net::lookup_host(address).await.map_err(|_| bad())?.next();
        let target = target.ok_or_else(bad)?;
        let token: JoinToken = token.trim().parse()?;
        let (credential, answer) =
            impresario_runtime::join(target, &token, name, JOIN_LIMIT).await?;
        if answer.role != PeerRole::Client {
            return Err(ConnectError::Role { role: answer.role });
        }
        let machine = Some(target.ip()).filter(|ip| !ip.is_loopback());
        let members = answer.peers.into_iter().filter(|(_, _, control)| *control);
        let members = members
            .map(|(name, address, _)| (name.as_str().to_owned(), reachable(address, machine)))
            .collect();
        let kept = Kept { machine, members };
        credential.save(&credential_in(folder))?;
        // Written last: with it the folder is whole.
        kept.write(folder).map_err(broken(folder))?;
        connected(credential, kept, folder).await
    }

    /// Connects with the credential that [`Client::join`] has kept in `folder`.
    ///
    /// Must be called inside an actix system.
    pub async fn open(folder: &Path) -> Result<Self, ConnectError> {
        let kept = Kept::read(folder).map_err(broken(folder))?;
        let credential = Credential::load(&credential_in(folder))?;
        let until = credential.validity().1;
        if until <= SystemTime::now() {
            let at = Timestamp::try_from(until).unwrap_or(Timestamp::MAX);
            return Err(ConnectError::Expired { folder: folder.to_owned(), at });
        }
        connected(credential, kept, folder).await
    }
}

fn broken(folder: &Path) -> impl Fn(io::Error) -> ConnectError {
    let folder = folder.to_owned();
    move |cause| ConnectError::File { path: file_in(&folder), folder: folder.clone(), cause }
}

async fn connected(
    credential: Credential,
    kept: Kept,
    folder: &Path,
) -> Result<Client, ConnectError> {
    let members: Vec<_> =
        kept.members.iter().map(|(name, at)| (NodeName::from(name.as_str()), *at)).collect();
    let home = Home { machine: kept.machine, folder: Some(folder.to_owned()) };
    Client::at_home(credential, &members, home).await
}
