//! Other nodes of this machine that serve the same addresses.
//!
//! Each address is listened on by one socket, which nobody else can listen beside: what the kernel shares between
//! sockets (`SO_REUSEPORT`) it shares with every program of the same user, and pods are of the node's. Whoever has
//! the socket hands it on (`SCM_RIGHTS`, unix(7)) at a Unix socket in its folder, which no pod sees, to
//! processes of the same user that ask for the same cluster. Each takes connections when it can: who does not live
//! takes none. Datagrams are read by one at a time (`turns`), since those of a client must come to one process.

use super::{
    port::{Port, Ports},
    rule::Protocol,
};
use impresario_ambient::tasks;
use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, getsockname, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::{self, File},
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::timeout,
};

/// Where a node hands its sockets on, in its folder.
const SOCKET: &str = "services.sock";
/// How long a neighbour may take to ask or to answer.
const LIMIT: Duration = Duration::from_millis(500);
/// The longest question.
const QUESTION: u64 = 1024;

/// Among whom addresses are shared.
pub struct Neighbourhood {
    /// The cluster: others have other services.
    pub cluster: String,
    /// The node's own folder, where it is asked; out of reach for its pods.
    pub folder: PathBuf,
    /// Folders of all nodes of this machine, as they are at the time.
    pub nodes: Box<dyn Fn() -> Vec<PathBuf> + Send + Sync>,
}

impl fmt::Debug for Neighbourhood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, folder, nodes: _ } = self;
        f.debug_struct("Neighbourhood").field("cluster", cluster).field("folder", folder).finish()
    }
}

/// What a neighbour is asked for.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    cluster: String,
    address: SocketAddr,
    protocol: Protocol,
}

/// A neighbour's words, of one byte each: with its socket, that for connections or that for datagrams.
const CONNECTIONS: u8 = b'h';
const DATAGRAMS: u8 = b'd';
const NOT_HERE: u8 = b'n';

/// The word that goes with a socket.
fn word(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => CONNECTIONS,
        Protocol::Udp => DATAGRAMS,
    }
}

/// Asks others, and answers them until it is dropped.
#[derive(Debug)]
pub(super) struct Neighbours {
    among: Neighbourhood,
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.task.abort();
        // What is left of it is removed by the next process.
        let _ = fs::remove_file(&self.path);
    }
}

impl Neighbours {
    pub(super) fn start(mut among: Neighbourhood, ports: Ports) -> io::Result<Self> {
        among.folder = fs::canonicalize(&among.folder)?;
        let path = among.folder.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {} // that of a process that was killed
        }
        let (_folder, by_number) = by_number(&among.folder)?;
        let asked = UnixListener::bind(by_number)?;
        let task = tasks::spawn(answer_all(asked, among.cluster.clone(), ports));
        Ok(Self { among, path, task })
    }

    /// The socket by which a neighbour serves an address. One that does not answer is added to `silent` and not asked again.
    pub(super) async fn ask(
        &self,
        address: SocketAddr,
        protocol: Protocol,
        silent: &mut Vec<PathBuf>,
    ) -> Option<OwnedFd> {
        let question = Question { cluster: self.among.cluster.clone(), address, protocol };
        let question = serde_json::to_vec(&question).ok()?;
        for folder in (self.among.nodes)() {
            if folder == self.among.folder
                || silent.contains(&folder)
                || !folder.join(SOCKET).exists()
            {
                continue;
            }
            match timeout(LIMIT, ask_one(&folder, &question, word(protocol))).await {
                Ok(Ok(Some(socket))) if is_at(&socket, address) => return Some(socket),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(?folder, %error, "a neighbour has no socket"),
                Err(_) => {
                    tracing::warn!(?folder, "a node of this machine does not answer");
                    silent.push(folder);
                }
            }
        }
        None
    }
}

/// The path of the socket in a folder, by a descriptor: the address of a Unix socket has 108 bytes.
fn by_number(folder: &Path) -> io::Result<(File, PathBuf)> {
    let file = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", file.as_raw_fd());
    Ok((file, path.into()))
}

fn is_at(socket: &OwnedFd, address: SocketAddr) -> bool {
    let own = getsockname(socket).ok().and_then(|own| SocketAddr::try_from(own).ok());
    own == Some(address)
}

/// Its socket, if it says this word.
async fn ask_one(folder: &Path, question: &[u8], expected: u8) -> io::Result<Option<OwnedFd>> {
    let (_folder, path) = by_number(folder)?;
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(question).await?;
    stream.shutdown().await?;
    let (word, socket) = loop {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || receive(&stream)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => break received?,
        }
    };
    Ok(socket.filter(|_| word == expected))
}

fn receive(stream: &UnixStream) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut byte = [NOT_HERE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    if recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?.bytes == 0 {
        return Err(Errno::CONNRESET.into());
    }
    let socket = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    Ok((byte[0], socket))
}

async fn answer_all(asked: UnixListener, cluster: String, ports: Ports) {
    let own = rustix::process::geteuid().as_raw();
    loop {
        let stream = match asked.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a neighbour was not heard"); // out of descriptors, mostly
                tokio::time::sleep(LIMIT).await;
                continue;
            }
        };
        let outcome = match stream.peer_cred() {
            Ok(peer) if peer.uid() == own => timeout(LIMIT, answer(stream, &cluster, &ports)).await,
            Ok(peer) => Ok(Err(io::Error::other(format!("user {} is another", peer.uid())))),
            Err(error) => Ok(Err(error)),
        };
        if let Ok(Err(error)) = outcome {
            tracing::debug!(%error, "a neighbour was not answered");
        }
    }
}

async fn answer(mut stream: UnixStream, cluster: &str, ports: &Ports) -> io::Result<()> {
    let mut bytes = Vec::new();
    (&mut stream).take(QUESTION).read_to_end(&mut bytes).await?;
    let question: Question = serde_json::from_slice(&bytes)?;
    let (word, socket) = if question.cluster == cluster {
        let ports = ports.lock();
        match ports.get(&(question.address, question.protocol)) {
            Some(Port { socket: Some(socket), .. }) => {
                (word(question.protocol), Some(socket.try_clone()?))
            }
            _ => (NOT_HERE, None),
        }
    } else {
        (NOT_HERE, None)
    };
    // A new connection has room for it.
    let sockets: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&sockets));
    }
    sendmsg(&stream, &[IoSlice::new(&[word])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
