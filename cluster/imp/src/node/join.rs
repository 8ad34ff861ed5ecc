//! Joining a cluster by hand: a token becomes a certificate and a node's folder.

use super::ranges::pod_range;
use crate::cli::{self, Driver};
use crate::layout::{JOINING, LayoutError, NodeDir, NodeFile, Peer, make_private_dir};
use crate::node::drivers;
use crate::node::gate::role_name;
use impresario_actors::node::machine::Share;
use impresario_client::reachable;
use impresario_host::machine::has_address;
use impresario_runtime::pki::{KeyRequest, PkiError, TokenError};
use impresario_runtime::{JoinError as RuntimeJoinError, JoinToken, PeerRole};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// More than certificate, key and description of a node take, in bytes.
const ROOM: usize = 64 * 1024;
/// How long the cluster has to answer.
const JOIN_LIMIT: Duration = Duration::from_secs(20);

/// Why the machine did not join.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The address is none.
    #[error("{0} is not an address such as 10.0.0.1:7000: copy it from `imp token create`")]
    Address(String),
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The cluster refused, or did not answer.
    #[error(transparent)]
    Refused(#[from] RuntimeJoinError),
    /// The token was made for something else.
    #[error("the token makes a {0}, not a node: make one with `imp token create --role node`")]
    Role(&'static str),
    /// The cluster runs on this machine.
    #[error(
        "the cluster at {0} runs on this machine, and its nodes offer all of it already: `imp up --nodes N` gives one \
         more its part; --whole-machine offers all of it once more"
    )]
    SameMachine(SocketAddr),
    /// The answer of the cluster was lost.
    #[error(
        "{0}. Run the same command again within ten minutes: this folder is answered again, and nobody else with this \
         token"
    )]
    Unanswered(RuntimeJoinError),
    /// The certificate could not be kept.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The folder could not be written.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A flag says something else than what the folder was set up with.
    #[error(
        "the node in {path} was set up with {flag} {made}, not {asked}: leave the flag out, or remove the node with \
         `imp down --purge --data-dir {path}` and join anew"
    )]
    SetUp {
        /// The folder.
        path: PathBuf,
        /// The flag.
        flag: &'static str,
        /// What it was.
        made: String,
        /// What is asked for now.
        asked: String,
    },
    /// No port is free.
    #[error("cannot listen on {address}: {source}; choose another with --bind")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Joins, and writes the node's folder.
pub async fn join(
    dir: &NodeDir,
    args: &cli::Node,
    address: &str,
    token: &str,
) -> Result<(), JoinError> {
    let bad = || JoinError::Address(address.to_owned());
    let target = address.to_socket_addrs().map_err(|_| bad())?.next().ok_or_else(bad)?;
    if !args.whole_machine && (target.ip().is_loopback() || has_address(target.ip())) {
        return Err(JoinError::SameMachine(target));
    }
    let token: JoinToken = token.trim().parse()?;
    if token.is_for_client() {
        return Err(JoinError::Role(role_name(&PeerRole::Client)));
    }
    let failed = |address| move |source| JoinError::Bind { address, source };
    let seen = own_address(target).map_err(failed(target))?;
    let wanted = args.bind.unwrap_or(SocketAddr::new(seen, 0));
    let socket = UdpSocket::bind(wanted).map_err(failed(wanted))?;
    let port = socket.local_addr().map_err(failed(wanted))?.port();
    drop(socket);

    let name = args.name.clone().or_else(host_name);
    // Better now than when the token is used up.
    make_private_dir(dir.path())?;
    try_room(dir)?;
    drivers::hide_from_pods(dir.path()).await;
    let request = dir.join_request();
    let key = KeyRequest::kept(&request)?;
    let joined = impresario_runtime::join_with(key, target, &token, name, JOIN_LIMIT).await;
    // The request is kept until the folder is written. What sounds like a refusal may have used the token up: the
    // answer of a member that lost its leader in between. The same request is answered again; a new one would not be.
    let (credential, answer) = joined.map_err(|error| match error {
        error @ RuntimeJoinError::Unanswered { .. } => JoinError::Unanswered(error),
        error => error.into(),
    })?;
    if answer.role != PeerRole::Node {
        return Err(JoinError::Role(role_name(&answer.role)));
    }
    credential.save(&dir.credential())?;
    let through = target.ip();
    let driver = args.driver.unwrap_or(Driver::Process);
    dir.save(&NodeFile {
        name: answer.name.to_string(),
        cluster: answer.cluster.clone(),
        bind: SocketAddr::new(wanted.ip(), port),
        advertise: SocketAddr::new(args.address.unwrap_or(seen), port),
        control: None,
        peers: answer
            .peers
            .iter()
            .map(|(name, address, control)| Peer {
                name: name.to_string(),
                address: reachable(*address, Some(through).filter(|ip| !ip.is_loopback())),
                control: *control,
            })
            .collect(),
        driver,
        docker_host: drivers::docker_host(driver),
        share: Share::default(),
        pod_range: pod_range(&answer.cluster, answer.number),
        joined_through: Some(through),
        chaos: false,
    })?;
    dir.forget_join_request();
    Ok(())
}

/// What was said when the folder was set up holds: to say something else now would do nothing.
///
/// A token of the same cluster is what a service that always says it has; it is not used again.
pub fn refuse_changes(
    dir: &NodeDir,
    file: &NodeFile,
    authority: &str,
    args: &cli::Node,
) -> Result<(), JoinError> {
    let differs = |flag, made: String, asked: Option<String>| match asked {
        Some(asked) if asked != made => {
            Err(JoinError::SetUp { path: dir.path().to_owned(), flag, made, asked })
        }
        _ => Ok(()),
    };
    if let (Some(address), Some(token)) = (&args.join, &args.token) {
        let token: JoinToken = token.trim().parse()?;
        if token.authority_fingerprint() != authority {
            return Err(JoinError::SetUp {
                path: dir.path().to_owned(),
                flag: "--join",
                made: format!("in the cluster {}", file.cluster),
                asked: format!("another one at {address}"),
            });
        }
    }
    differs("--name", file.name.clone(), args.name.clone())?;
    // Port 0 takes any, and has taken one.
    let bind = args.bind.map(|asked| match asked.port() {
        0 => SocketAddr::new(asked.ip(), file.bind.port()),
        _ => asked,
    });
    differs("--bind", file.bind.to_string(), bind.map(|bind| bind.to_string()))?;
    let made = file.advertise.ip().to_string();
    differs("--address", made, args.address.map(|address| address.to_string()))?;
    let word = |driver: Driver| format!("{driver:?}").to_lowercase();
    differs("--driver", word(file.driver), args.driver.map(word))?;
    let is_whole = file.share.of <= 1;
    differs("--whole-machine", is_whole.to_string(), args.whole_machine.then(|| true.to_string()))
}

/// Whether the disk takes what is to be kept.
fn try_room(dir: &NodeDir) -> Result<(), LayoutError> {
    let path = dir.path().join(JOINING);
    let written = std::fs::File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0; ROOM])?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    written.and(removed).map_err(|source| LayoutError::Io { path, source })
}

/// The address from which this machine reaches `target`: no packet is sent to find out.
fn own_address(target: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}

/// The machine's name, as far as it can be a node's.
fn host_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name: String = text
        .trim()
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    Some(name.trim_matches(['-', '.']).to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::BoxFuture;
    use impresario_runtime::{
        ActorNode, ClusterAuthority, JoinAnswer, JoinDoor, JoinRequest, NodeConfig, Refusal,
    };
    use parking_lot::Mutex;
    use std::sync::Arc;

    fn file() -> NodeFile {
        NodeFile {
            name: "far".into(),
            cluster: "imp-1".into(),
            bind: SocketAddr::from(([10, 0, 0, 2], 40_000)),
            advertise: SocketAddr::from(([10, 0, 0, 3], 40_000)),
            control: None,
            peers: Vec::new(),
            driver: Driver::Process,
            docker_host: None,
            share: Share::default(),
            pod_range: pod_range("imp-1", 7),
            joined_through: None,
            chaos: false,
        }
    }

    fn args(flags: &[&str]) -> cli::Node {
        use clap::Parser as _;
        let all = ["imp", "node", "--data-dir", "d"].iter().chain(flags);
        match cli::Cli::try_parse_from(all).unwrap().command {
            cli::Command::Node(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_folder_that_is_set_up_refuses_by_name_what_it_was_not_set_up_with() {
        let (own, other) =
            (ClusterAuthority::create("a").unwrap(), ClusterAuthority::create("b").unwrap());
        let token =
            |of: &ClusterAuthority| JoinToken::create(&of.fingerprint()).unwrap().to_string();
        let (mine, foreign) = (token(&own), token(&other));
        let judged = |flags: &[&str]| {
            let dir = NodeDir::new("d".into());
            refuse_changes(&dir, &file(), &own.fingerprint(), &args(flags))
        };
        for same in [
            &[][..],
            &["--name", "far"],
            &["--bind", "10.0.0.2:40000"],
            &["--bind", "10.0.0.2:0"],
            &["--address", "10.0.0.3"],
            &["--driver", "process"],
            &["--whole-machine"],
            &["--join", "10.0.0.1:7000", "--token", &mine],
        ] {
            judged(same).unwrap();
        }
        for other in [
            &["--name", "near"][..],
            &["--bind", "10.0.0.2:40001"],
            &["--bind", "10.0.0.9:0"],
            &["--address", "10.0.0.9"],
            &["--driver", "docker"],
            &["--join", "10.0.0.1:7000", "--token", &foreign],
        ] {
            let refused = judged(other).unwrap_err().to_string();
            assert!(refused.contains(other[0]), "{other:?}: {refused}");
        }
        let refused = judged(&["--join", "10.0.0.1:7000", "--token", "made-up"]);
        assert!(matches!(refused, Err(JoinError::Token(_))), "{refused:?}");
    }

    /// A door that says that it is not available, though it has used the token up for the first who asked.
    struct InDoubt {
        authority: ClusterAuthority,
        asked: Mutex<Vec<String>>,
    }

    impl InDoubt {
        fn answer(&self, request: JoinRequest) -> Result<JoinAnswer, Refusal> {
            let mut asked = self.asked.lock();
            asked.push(request.csr_pem.clone());
            if asked.len() == 1 {
                return Err(Refusal::new("the registry is not available: try again"));
            }
            if asked[0] != request.csr_pem {
                return Err(Refusal::new("the token was used"));
            }
            let name = request.name.unwrap_or_default();
            let day = Duration::from_hours(24);
            let signed =
                self.authority.sign_csr(&request.csr_pem, &name, &PeerRole::Node, &[], day);
            Ok(JoinAnswer {
                certificate_pem: signed.map_err(|error| Refusal::new(error.to_string()))?,
                authority_pem: self.authority.certificate_pem().to_owned(),
                name: name.as_str().into(),
                role: PeerRole::Node,
                cluster: self.authority.cluster().to_owned(),
                number: 70,
                peers: Vec::new(),
            })
        }
    }

    impl JoinDoor for InDoubt {
        fn join(&self, request: JoinRequest) -> BoxFuture<'_, Result<JoinAnswer, Refusal>> {
            Box::pin(async { self.answer(request) })
        }
    }

    #[actix::test]
    async fn a_join_that_sounded_refused_is_asked_again_with_the_same_request() {
        let authority = ClusterAuthority::create("test").unwrap();
        let day = Duration::from_hours(24);
        let control = authority.issue("control", PeerRole::Control, &[], day).unwrap();
        let token = JoinToken::create(&authority.fingerprint()).unwrap().to_string();
        let door = Arc::new(InDoubt { authority, asked: Mutex::default() });
        let config = NodeConfig { join: Some(door.clone()), ..NodeConfig::new(control) };
        let node = ActorNode::start(config).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(folder.path().join("far"));
        let args = args(&["--whole-machine", "--name", "far"]);
        let address = node.local_addr().to_string();
        let refused = join(&dir, &args, &address, &token).await;
        assert!(matches!(refused, Err(JoinError::Refused(_))), "{refused:?}");
        join(&dir, &args, &address, &token).await.unwrap();
        assert_eq!(door.asked.lock().len(), 2);
        assert!(dir.credential().exists() && !dir.join_request().exists());
        node.stop(Duration::from_secs(5)).await;
    }
}
