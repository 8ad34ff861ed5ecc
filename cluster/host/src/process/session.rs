//! A further command in a container that somebody writes to and reads from: a child of the node that enters it
//! ([`crate::shim`]).
//!
//! The command comes to the child as the first line of its standard input; what follows is the command's own. With a
//! terminal its three files are that, and the child is the leader of a session: what it started is found by that.

use super::{Inner, asked::Asked, identity};
use crate::container::{
    Attached, ContainerId, ContainerState, DriverError, Size, Typed, Wanted, Written,
    session::{PIECE, PIECES},
};
use bytes::Bytes;
use impresario_ambient::tasks;
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::{Pid, Signal, kill_process_group},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::unix::pipe,
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};

/// How long output is waited for when the command has ended but something else holds its pipes.
const DRAIN_LIMIT: Duration = Duration::from_millis(200);
/// How often what is left of a session is looked for: who forks fast may escape one look.
const KILL_ROUNDS: usize = 5;

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

impl Inner {
    /// Starts the command.
    pub(super) fn run(&self, id: &ContainerId, wanted: Wanted) -> Result<Attached, DriverError> {
        let folder = self.folder(id)?;
        if !matches!(self.state(id)?, ContainerState::Running { .. }) {
            return Err(DriverError::NotRunning { id: id.clone() });
        }
        let failed = |error| DriverError::io(format!("running a command in {id}"))(error);
        let shim = || Ok::<_, io::Error>(Command::from(self.config.shim.command("session")?));
        let begin = |mut command: Command| {
            command.arg(&folder).stdin(Stdio::piped());
            if wanted.tty { with_terminal(command) } else { with_pipes(command) }
        };
        let Begun { mut running, order, input, outputs, terminal } =
            shim().and_then(begin).map_err(failed)?;
        let asked = Asked { command: wanted.command, stdin: wanted.stdin, tty: wanted.tty };
        let mut line = serde_json::to_vec(&asked).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let (typed, comes) = mpsc::channel(PIECES);
        let (written, output) = mpsc::channel(PIECES);
        tasks::spawn(async move {
            let feeding = feed(order, line, input, terminal, comes);
            if let Some(code) = running.carry(feeding, outputs, &written).await {
                // Nobody may be there any more to hear it.
                let _ = written.send(Written::Ended(code)).await;
            }
        });
        // Without one that reads it, the input is at its end: who writes would only be told that it is closed.
        Ok(Attached { input: (wanted.stdin || wanted.tty).then_some(typed), output })
    }
}

/// A child, and the node's ends of what it reads and writes.
struct Begun {
    running: Running,
    order: ChildStdin,
    /// What the input is written to where that is not the order's pipe.
    input: Option<Writer>,
    outputs: [Option<Reader>; 2],
    terminal: Option<OwnedFd>,
}

fn with_pipes(mut command: Command) -> io::Result<Begun> {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
    let (order, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let running = Running { child, has_session: false };
    let order = order.ok_or(io::ErrorKind::BrokenPipe)?;
    let outputs = [out.map(|out| Box::new(out) as Reader), err.map(|err| Box::new(err) as Reader)];
    Ok(Begun { running, order, input: None, outputs, terminal: None })
}

fn with_terminal(mut command: Command) -> io::Result<Begun> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = ioctl_tiocgptpeer(&master, flags)?;
    fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
    // What carries pipes carries terminals as well: both can be polled.
    let input = pipe::Sender::from_owned_fd_unchecked(master.try_clone()?)?;
    let out = pipe::Receiver::from_owned_fd_unchecked(master.try_clone()?)?;
    // The child makes a session of its own, which the leader of a group could not.
    let mut child =
        command.stdout(Stdio::from(theirs.try_clone()?)).stderr(Stdio::from(theirs)).spawn()?;
    let order = child.stdin.take();
    let running = Running { child, has_session: true };
    let order = order.ok_or(io::ErrorKind::BrokenPipe)?;
    let outputs = [Some(Box::new(out) as Reader), None];
    let input = Some(Box::new(input) as Writer);
    Ok(Begun { running, order, input, outputs, terminal: Some(master) })
}

/// Writes the order, and then what comes, until nothing more does or nobody reads it.
async fn feed(
    mut order: ChildStdin,
    line: Vec<u8>,
    input: Option<Writer>,
    terminal: Option<OwnedFd>,
    mut comes: mpsc::Receiver<Typed>,
) {
    // One that ends before it has read says why itself.
    if order.write_all(&line).await.is_err() {
        return;
    }
    let mut input = input.unwrap_or_else(|| Box::new(order));
    while let Some(typed) = comes.recv().await {
        match typed {
            Typed::Bytes(bytes) => {
                if input.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Typed::Resize(Size { width, height }) => {
                let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
                // One that has no terminal has no size; one whose command has ended needs none.
                if let Some(terminal) = &terminal {
                    let _ = tcsetwinsize(terminal, size);
                }
            }
        }
    }
}

/// A command that is ended, with all that it started, when nobody listens to it any more.
struct Running {
    child: Child,
    /// Whether it leads a session of its own, in which a shell gives each of its jobs a group.
    has_session: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Without an id it was waited for, and the number may be another's.
        let Some(id) = self.child.id() else { return };
        let Some(group) = i32::try_from(id).ok().and_then(Pid::from_raw) else { return };
        // What has ended meanwhile needs no signal; tokio reaps it.
        if self.has_session {
            end_session(id);
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.start_kill();
    }
}

/// Ends all of a session but its leader, whose number keeps the session's from being another's.
fn end_session(leader: u32) {
    for _ in 0..KILL_ROUNDS {
        let all = identity::all().into_iter().filter(|pid| *pid != leader);
        let members: Vec<_> = all
            .filter_map(identity::ProcessKey::of)
            .filter(|process| {
                identity::stat(process.pid)
                    .is_some_and(|found| found.session == leader && found.state != 'Z')
            })
            .collect();
        if members.is_empty() {
            return;
        }
        for process in members {
            let _ = process.signal(Signal::KILL);
        }
    }
}

/// How far the outputs have come.
#[derive(Default)]
struct Progress {
    pieces: AtomicU64,
    /// Whether a piece waits for its reader.
    waits: AtomicBool,
}

impl Running {
    /// Carries what it writes until it has ended; its exit code, or none if nobody listens any more.
    async fn carry(
        &mut self,
        feeding: impl Future<Output = ()>,
        outputs: [Option<Reader>; 2],
        written: &mpsc::Sender<Written>,
    ) -> Option<i32> {
        let progress = [Progress::default(), Progress::default()];
        let [out, err] = outputs;
        let listening = async {
            tokio::join!(
                listen(out, Written::Stdout, written, &progress[0]),
                listen(err, Written::Stderr, written, &progress[1]),
            )
        };
        tokio::pin!(feeding, listening);
        let (mut is_fed, mut is_heard, mut code) = (false, false, None);
        loop {
            let pieces = || progress.iter().map(|one| one.pieces.load(Relaxed)).sum::<u64>();
            let before = pieces();
            tokio::select! {
                () = written.closed() => return None,
                () = &mut feeding, if !is_fed => is_fed = true,
                _ = &mut listening, if !is_heard => is_heard = true,
                ended = self.child.wait(), if code.is_none() => {
                    let status = match ended {
                        Ok(status) => status,
                        Err(error) => {
                            tracing::warn!(%error, "a command's end is not known");
                            return None;
                        }
                    };
                    code = Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
                }
                () = tokio::time::sleep(DRAIN_LIMIT), if code.is_some() => {
                    let waits = progress.iter().any(|one| one.waits.load(Relaxed));
                    if !waits && pieces() == before {
                        return code;
                    }
                }
            }
            if is_heard && code.is_some() {
                return code;
            }
        }
    }
}

/// Gives on what is read, until the end. Of a terminal the end is an error: nobody has its other side.
async fn listen(
    from: Option<Reader>,
    piece: fn(Bytes) -> Written,
    written: &mpsc::Sender<Written>,
    progress: &Progress,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; PIECE];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        progress.waits.store(true, Relaxed);
        let sent = written.send(piece(Bytes::copy_from_slice(&buffer[..size]))).await;
        progress.waits.store(false, Relaxed);
        progress.pieces.fetch_add(1, Relaxed);
        if sent.is_err() {
            return;
        }
    }
}
