//! One listening socket for all processes of a machine that serve one address.
//!
//! With a socket for each of them (`SO_REUSEPORT`) the kernel deals connections to a process that is
//! stopped or stuck as to any other, and nothing in that process can prevent it. From one socket
//! that all hold, each takes a connection when it can: who does not live takes none.
//!
//! Nobody can listen beside it either, so that no other program of the same user, such as a pod, is dealt our
//! connections.
//!
//! Who finds the address free listens there. Everyone who has the socket hands it on (`SCM_RIGHTS`,
//! unix(7)) at a Unix socket in a folder of its own, to processes of the same user. From one that is
//! stopped it is taken (pidfd_getfd(2)).

use impresario_runtime::{Backoff, clock, random, tasks};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// Where a process hands its socket on, in its folder.
const HANDED_ON: &str = "api.sock";
/// Connections that wait to be taken.
const BACKLOG: i32 = 1024;
/// How long another process may take to hand its socket on.
const ANSWER: Duration = Duration::from_millis(500);
/// After so long the socket is taken from a process that runs and does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long an address is tried that strangers use: they may be about to end.
const STRANGERS: Duration = Duration::from_secs(2);
/// Pauses between tries.
const RETRY: Backoff =
    Backoff { first: Duration::from_millis(20), most: Duration::from_millis(500) };

/// Why the server does not listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}: choose another port or stop what uses it")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The socket cannot be used.
    #[error("the socket that listens cannot be used: {0}")]
    Socket(std::io::Error),
}

/// Another process that runs and shares the address.
#[derive(Debug, Clone)]
pub struct Sharer {
    /// Its own folder.
    pub folder: PathBuf,
    /// Its number, as far as it is known.
    pub pid: Option<i32>,
}

/// A socket that listens, handed on to others as long as this is there.
#[derive(Debug)]
pub struct SharedListener {
    pub(super) listener: TcpListener,
    pub(super) handed_on: Option<HandedOn>,
}

impl SharedListener {
    /// The socket of an address that nobody else uses or will be given.
    pub fn alone(address: SocketAddr) -> Result<Self, ListenError> {
        let listener = listen(address);
        let listener = listener.map_err(|source| ListenError::Bind { address, source })?;
        Ok(Self { listener, handed_on: None })
    }

    /// The socket of an address: that of another process that runs, else a new one. It is handed on in
    /// `folder`, which is this process's alone; `others` gives the processes that run and share the address.
    ///
    /// Where some run and none hands its socket on for five seconds, as when all are stopped, it is taken from
    /// them, as far as the machine lets us: as root, or where a user may trace what is theirs.
    pub async fn of(
        address: SocketAddr,
        folder: &Path,
        others: impl Fn() -> Vec<Sharer>,
    ) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind { address, source };
        let began = clock::now();
        let mut attempt = 0;
        let listener = loop {
            let running = others();
            if let Some(listener) = ask_all(&running, address).await {
                break listener;
            }
            if began.elapsed() > PATIENCE
                && let Some(listener) = take_from_any(&running, address)
            {
                break listener;
            }
            match listen(address) {
                Ok(listener) => break listener,
                Err(error)
                    if error.kind() != io::ErrorKind::AddrInUse
                        || (running.is_empty() && began.elapsed() > STRANGERS)
                        || began.elapsed() > 2 * PATIENCE =>
                {
                    return Err(failed(error));
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY.wait(attempt, random::random())).await;
            attempt += 1;
        };
        let handed_on = HandedOn::start(listener.try_clone().map_err(failed)?, folder);
        Ok(Self { listener, handed_on: Some(handed_on.map_err(failed)?) })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Listens where nobody does. The port is not for sharing (`SO_REUSEPORT`), now or later: the kernel would share it
/// with whatever program of the same user asks.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The socket of a process that does not answer.
fn take_from_any(sharers: &[Sharer], address: SocketAddr) -> Option<TcpListener> {
    for Sharer { folder, pid } in sharers {
        match pid.map(|pid| take(pid, address)) {
            Some(Ok(Some(listener))) => {
                tracing::warn!(%address, ?folder, pid, "the API's socket was taken from a member that does not answer: end it");
                return Some(listener);
            }
            Some(Err(error)) => tracing::debug!(?folder, pid, %error, "its socket cannot be taken"),
            Some(Ok(None)) | None => {}
        }
    }
    None
}

/// The socket by which a process listens at an address.
fn take(pid: i32, address: SocketAddr) -> io::Result<Option<TcpListener>> {
    let process = pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let is_socket = std::fs::read_link(entry.path())
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|_| is_socket) else { continue };
        let socket = match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
            Ok(socket) => socket,
            Err(Errno::BADF) => continue, // closed since
            Err(error) => return Err(error.into()),
        };
        let seen = SockRef::from(&socket);
        let is_here = || seen.local_addr().is_ok_and(|is| is.as_socket() == Some(address));
        if seen.is_listener().unwrap_or(false) && is_here() {
            return Ok(Some(socket.into()));
        }
    }
    Ok(None)
}

async fn ask_all(sharers: &[Sharer], address: SocketAddr) -> Option<TcpListener> {
    for Sharer { folder, .. } in sharers {
        match tokio::time::timeout(ANSWER, ask(folder)).await {
            Ok(Ok(listener)) if listener.local_addr().is_ok_and(|is| is == address) => {
                return Some(listener);
            }
            Ok(Ok(_)) => tracing::debug!(?folder, "it listens elsewhere"),
            Ok(Err(error)) => tracing::debug!(?folder, %error, "no socket yet"),
            Err(_) => tracing::debug!(?folder, "it does not answer"),
        }
    }
    None
}

/// Asks the process of this folder for its socket.
async fn ask(folder: &Path) -> io::Result<TcpListener> {
    let (_folder, path) = short(folder)?;
    let stream = UnixStream::connect(path).await?;
    loop {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || receive(&stream)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return received,
        }
    }
}

fn receive(stream: &UnixStream) -> io::Result<TcpListener> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    Ok(rights.ok_or(Errno::CONNRESET)?.into())
}

/// The path of the socket in a folder, by a descriptor: the address of a Unix socket has 108 bytes.
fn short(folder: &Path) -> io::Result<(File, PathBuf)> {
    let file = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{HANDED_ON}", file.as_raw_fd());
    Ok((file, path.into()))
}

/// Hands a socket on until it is dropped.
#[derive(Debug)]
pub(super) struct HandedOn {
    task: JoinHandle<()>,
    path: PathBuf,
}

impl HandedOn {
    fn start(listener: TcpListener, folder: &Path) -> io::Result<Self> {
        let path = folder.join(HANDED_ON);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {} // that of a process that was killed
        }
        let (_folder, short) = short(folder)?;
        let asked = UnixListener::bind(short)?;
        let task = tasks::spawn(hand_on(listener, asked));
        Ok(Self { task, path })
    }
}

impl Drop for HandedOn {
    fn drop(&mut self) {
        self.task.abort();
        // What is left of it is removed by the next process.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn hand_on(listener: TcpListener, asked: UnixListener) {
    let own = rustix::process::geteuid().as_raw();
    loop {
        let outcome = match asked.accept().await {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(peer) if peer.uid() == own => send(&stream, &listener),
                Ok(peer) => Err(io::Error::other(format!("user {} may not have it", peer.uid()))),
                Err(error) => Err(error),
            },
            Err(error) => {
                tokio::time::sleep(ANSWER).await; // out of descriptors, mostly
                Err(error)
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "the API's socket was not handed on");
        }
    }
}

/// One byte, with the socket. A new connection has room for it.
fn send(stream: &UnixStream, listener: &TcpListener) -> io::Result<()> {
    let sockets = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&sockets));
    sendmsg(stream, &[IoSlice::new(&[1])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn any() -> SocketAddr {
        SharedListener::alone(([127, 0, 0, 1], 0).into()).unwrap().address().unwrap()
    }

    fn folder(scratch: &Path, name: &str) -> PathBuf {
        // Longer than the address of a Unix socket may be.
        let folder = scratch.join("x".repeat(120)).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn sharer(folder: &Path) -> Sharer {
        Sharer { folder: folder.to_owned(), pid: i32::try_from(std::process::id()).ok() }
    }

    #[tokio::test]
    async fn a_process_that_takes_no_connections_keeps_none_from_the_others() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder(scratch.path(), name));
        let address = any();
        let stopped = SharedListener::of(address, &a, Vec::new).await.unwrap();
        let lives = SharedListener::of(address, &b, || vec![sharer(&a)]).await.unwrap();
        let taken = tokio::net::TcpListener::from_std(lives.listener).unwrap();
        for _ in 0..50 {
            let client = tokio::net::TcpStream::connect(address);
            let (client, accepted) = tokio::join!(client, taken.accept());
            assert_eq!(client.unwrap().local_addr().unwrap(), accepted.unwrap().1);
        }
        // Who had it first may go.
        drop(stopped);
        assert!(!a.join(HANDED_ON).exists());
        tokio::net::TcpStream::connect(address).await.unwrap();
    }

    #[tokio::test]
    async fn many_that_start_at_once_have_one_socket() {
        let scratch = tempfile::tempdir().unwrap();
        let folders: Vec<_> = (0..8).map(|n| folder(scratch.path(), &n.to_string())).collect();
        let address = any();
        let all = folders.iter().map(|own| {
            let others = folders.iter().filter(|other| *other != own);
            let others: Vec<_> = others.map(|other| sharer(other)).collect();
            SharedListener::of(address, own, move || others.clone())
        });
        let all = futures_util::future::join_all(all).await;
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let port = format!(":{:04X}", address.port());
        let listening = table.lines().filter(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            columns[1].ends_with(&port) && columns[3] == "0A"
        });
        assert_eq!((all.iter().filter(|one| one.is_ok()).count(), listening.count()), (8, 1));
    }

    #[tokio::test]
    async fn the_socket_of_one_that_runs_and_does_not_answer_is_taken() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder(scratch.path(), name));
        let address = any();
        let _silent = SharedListener::alone(address).unwrap();
        let second = SharedListener::of(address, &b, || vec![sharer(&a)]).await.unwrap();
        assert_eq!(second.address().unwrap(), address);
    }

    #[tokio::test]
    async fn nobody_of_the_same_user_listens_beside_it() {
        let scratch = tempfile::tempdir().unwrap();
        let address = any();
        let _ours = SharedListener::of(address, scratch.path(), Vec::new).await.unwrap();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
        for address in [address, everywhere] {
            let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            other.set_reuse_address(true).unwrap();
            other.set_reuse_port(true).unwrap();
            let refused = other.bind(&address.into()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse, "{address}");
        }
    }

    #[tokio::test]
    async fn an_address_of_a_stranger_is_not_shared() {
        let scratch = tempfile::tempdir().unwrap();
        let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = stranger.local_addr().unwrap();
        let refused = SharedListener::of(address, scratch.path(), Vec::new).await.unwrap_err();
        assert!(refused.to_string().contains("stop what uses it"), "{refused}");
        // It is had as soon as they go.
        let there = Arc::new(AtomicBool::new(true));
        let looks = there.clone();
        let had = SharedListener::of(address, scratch.path(), move || {
            looks.store(false, Ordering::Release);
            Vec::new()
        });
        let (had, ()) = tokio::join!(had, async {
            while there.load(Ordering::Acquire) {
                tokio::task::yield_now().await;
            }
            drop(stranger);
        });
        assert_eq!(had.unwrap().address().unwrap(), address);
    }
}
