//! First stage: starts the container, keeps its output, reaps its processes, records its exit.

use super::first::in_words;
use super::gpu_lock;
use super::line::Line;
use super::namespaces;
use crate::{
    container::{Exit, Stream, cri_log},
    process::{
        cgroup::Cgroup,
        identity::{self, ProcessKey},
        oom,
        record::{self, Born, Failed, Order, Report},
    },
};
use jiff::Timestamp;
use nix::{
    fcntl::Flock,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use rustix::process::{Pid, WaitOptions};
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

/// How long the second stage may take to reach its command: it mounts at most.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long output is still read when every process is gone but the pipe is open elsewhere.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// How long it is tried to end what outlives SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

pub(super) fn run(folder: &Path) -> ExitCode {
    close_inherited();
    let _ = nix::unistd::setsid();
    let _ = nix::unistd::chdir("/");
    // A user's keeper stays where its node is.
    let _ = oom::set(oom::KEEPER);
    let taken = fs::rename(folder.join("order.json"), folder.join("taken.json"));
    if taken.is_err() || folder.join("exit.json").exists() {
        return ExitCode::from(65); // a successor of the node has called it off
    }
    let report = match start(folder) {
        Ok(started) => {
            tell(&Report::Born(started.born.clone()));
            let exit = started.keep();
            tell_how_it_ended(folder, &exit);
            return ExitCode::SUCCESS;
        }
        Err(failed) => failed,
    };
    let _ = record::write(folder, "failed.json", &report);
    tell(&Report::Failed(report));
    ExitCode::FAILURE
}

/// Writes the exit, however long that takes: the keeper goes when it is known, or when the container's folder is gone.
fn tell_how_it_ended(folder: &Path, exit: &Exit) {
    let mut pause = Duration::from_millis(50);
    while record::keep(folder, "exit.json", exit).is_err() && folder.exists() {
        // The room was taken beforehand, so that this is a disk in trouble.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Closes what the node's process did not mark close-on-exec: nothing of it is ours to hold.
pub(super) fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> =
        entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|n| *n > 2) {
        let _ = nix::unistd::close(number);
    }
}

/// Tells the driver, if it still listens, and lets go of the channel.
fn tell(report: &Report) {
    let mut out = io::stdout();
    if let Ok(bytes) = serde_json::to_vec(report) {
        let _ = out.write_all(&bytes).and_then(|()| out.flush());
    }
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
    }
}

fn system(what: &str) -> impl FnOnce(io::Error) -> Failed {
    move |cause| Failed::System { what: what.to_owned(), cause: cause.to_string() }
}

/// A container and what is needed to keep it.
struct Started {
    born: Born,
    main: Pid,
    channel: BufReader<UnixStream>,
    signals: SignalFd,
    outputs: [Option<OwnedFd>; 2],
    log: cri_log::Writer,
    /// Its GPUs are nobody else's for as long as the keeper lives.
    _gpus: Vec<Flock<File>>,
}

fn start(folder: &Path) -> Result<Started, Failed> {
    let order: Order = record::read(folder, "taken.json")
        .and_then(|order| order.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(system("reading the order"))?;
    let keeper = ProcessKey::of(std::process::id())
        .ok_or_else(|| system("reading /proc")(io::ErrorKind::NotFound.into()))?;
    record::write(folder, "keeper.json", &keeper).map_err(system("writing keeper.json"))?;
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|errno| system("becoming the reaper")(errno.into()))?;
    let signals = watch_signals().map_err(system("watching signals"))?;
    // It starts while the rest is made here: loading the program is a good part of what a container's start takes.
    let second = Second::spawn(&order);
    let mut held = Held::default();
    let started = second.and_then(|second| second.begin(folder, order, signals, &mut held));
    if started.is_err() {
        end_all(held.cgroup.as_ref());
    }
    // Not before all of the container has ended: nobody else has its GPUs until then.
    drop(held);
    started
}

fn watch_signals() -> io::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        mask.add(signal);
    }
    mask.thread_block()?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

fn make_cgroup(order: &Order, warnings: &mut Vec<String>) -> Option<Cgroup> {
    let resources = &order.spec.resources;
    let limited = resources.memory_limit_bytes.is_some() || resources.cpu_limit_milli.is_some();
    let pod_cpu = order.spec.pod.cpu_request_milli;
    let made = order.cgroup.as_ref().map(|cgroup| cgroup.create(resources, pod_cpu));
    match made {
        Some(Ok(more)) => {
            warnings.extend(more);
            return order.cgroup.clone();
        }
        Some(Err(error)) if limited => warnings.push(format!(
            "no control group can be made ({error}): CPU is not limited, memory per process only"
        )),
        None if limited => warnings.push(
            "this machine has no control groups: CPU is not limited, memory per process only"
                .into(),
        ),
        _ => {}
    }
    None
}

/// What a container that is being started has of the machine.
#[derive(Default)]
struct Held {
    cgroup: Option<Cgroup>,
    gpus: Vec<Flock<File>>,
}

/// The second stage, which waits for its order.
struct Second {
    main: Pid,
    channel: BufReader<UnixStream>,
    outputs: [Option<OwnedFd>; 2],
}

impl Second {
    fn spawn(order: &Order) -> Result<Self, Failed> {
        let (channel, theirs) = UnixStream::pair().map_err(system("making a socket"))?;
        // Where that cannot be had the second stage finds no namespaces, and warns.
        if order.namespaces {
            let _ = namespaces::isolate_children();
        }
        let mut child = order
            .program
            .command("init")
            .map_err(system("starting the second stage"))?
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(system("starting the second stage"))?;
        let outputs = [child.stdout.take().map(Into::into), child.stderr.take().map(Into::into)];
        for output in outputs.iter().flatten() {
            set_nonblocking(output).map_err(system("preparing the output"))?;
        }
        let main = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let main = main.ok_or_else(|| system("starting")(io::ErrorKind::InvalidData.into()))?;
        Ok(Self { main, channel: BufReader::new(channel), outputs })
    }

    /// Makes what the container needs outside of it, hands the order on, and waits until its command executes or is
    /// known not to. Where this fails, who called ends what is in the control group, and lets go of what is held after.
    fn begin(
        mut self,
        folder: &Path,
        order: Order,
        signals: SignalFd,
        held: &mut Held,
    ) -> Result<Started, Failed> {
        let log = cri_log::Writer::open(folder.join("log"), order.spec.log)
            .map_err(system("opening the log"))?;
        record::reserve(folder, "exit.json").map_err(system("setting room aside for its exit"))?;
        held.gpus = gpu_lock::take(&order.spec.gpus)?;
        let mut warnings = Vec::new();
        held.cgroup = make_cgroup(&order, &mut warnings);
        let number = self.main.as_raw_nonzero().get() as u32;
        // The kernel takes up to 15 ms to move a process: the time in which that one loads.
        if let Some(cgroup) = &held.cgroup {
            cgroup.take_in(number).map_err(system("joining the control group"))?;
        }
        let order = Order { cgroup: held.cgroup.clone(), ..order };
        talk(&mut self.channel, &order, &mut warnings)?;
        let process = ProcessKey::of(number)
            .ok_or_else(|| system("reading /proc")(io::ErrorKind::NotFound.into()))?;
        let cgroup = held.cgroup.clone();
        let born = Born { process, started_at: Timestamp::now(), warnings, cgroup };
        record::write(folder, "born.json", &born).map_err(system("writing born.json"))?;
        let Self { main, channel, outputs } = self;
        let gpus = std::mem::take(&mut held.gpus);
        Ok(Started { born, main, channel, signals, outputs, log, _gpus: gpus })
    }
}

fn talk(
    reader: &mut BufReader<UnixStream>,
    order: &Order,
    warnings: &mut Vec<String>,
) -> Result<(), Failed> {
    let channel = reader.get_mut();
    let asked = serde_json::to_vec(order).map_err(|e| system("encoding the order")(e.into()))?;
    channel.set_read_timeout(Some(START_LIMIT)).map_err(system("setting a deadline"))?;
    channel.set_write_timeout(Some(START_LIMIT)).map_err(system("setting a deadline"))?;
    channel.write_all(&asked).map_err(system("handing on the order"))?;
    channel.shutdown(Shutdown::Write).map_err(system("handing on the order"))?;
    loop {
        match next_line(reader).map_err(system("waiting for the command to execute"))? {
            Some(Line::Warning(warning)) => warnings.push(warning),
            Some(Line::Failed(failed)) => return Err(failed),
            Some(Line::Began) | None => return Ok(()), // closed by execve
            Some(Line::Ended { .. }) => {
                let cause = "it ended before it began".to_owned();
                return Err(Failed::System { what: "starting the command".into(), cause });
            }
        }
    }
}

/// What the second stage says next; `None` when it has closed the channel.
fn next_line(reader: &mut BufReader<UnixStream>) -> io::Result<Option<Line>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

impl Started {
    fn keep(mut self) -> Exit {
        let mut ended = None;
        while ended.is_none() {
            self.wait(None);
            ended = self.reap();
        }
        let finished_at = Timestamp::now();
        let out_of_memory = self.born.cgroup.as_ref().is_some_and(Cgroup::out_of_memory);
        end_all(self.born.cgroup.as_ref());
        let drain = Instant::now();
        while self.outputs.iter().any(Option::is_some) && drain.elapsed() < DRAIN_LIMIT {
            self.wait(Some(Duration::from_millis(50)));
        }
        self.log.finish(Timestamp::now());
        let status = ended.unwrap_or((137, Some(9)));
        self.exit(status, finished_at, out_of_memory)
    }

    fn exit(&self, status: (i32, Option<i32>), at: Timestamp, out_of_memory: bool) -> Exit {
        let (code, signal) = status;
        let out_of_memory = out_of_memory && code != 0;
        let message = match self.log.lost {
            0 => String::new(),
            lost => format!("{lost} lines of output could not be kept"),
        };
        Exit {
            code,
            signal,
            started_at: Some(self.born.started_at),
            finished_at: at,
            reason: Exit::reason_for(code, out_of_memory).to_owned(),
            message,
        }
    }

    /// Sleeps until there is output or a signal, and deals with it.
    fn wait(&mut self, limit: Option<Duration>) {
        let limit = limit
            .map_or(PollTimeout::NONE, |l| PollTimeout::try_from(l).unwrap_or(PollTimeout::MAX));
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.outputs.iter().flatten().map(|o| PollFd::new(o.as_fd(), PollFlags::POLLIN)),
        );
        let _ = poll(&mut fds, limit);
        for (index, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let open = match &self.outputs[index] {
                Some(output) => drain(output, stream, &mut self.log),
                None => continue,
            };
            if !open {
                self.outputs[index] = None;
            }
        }
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                // The command alone is asked to stop: it knows what its children must finish.
                Ok(Signal::SIGTERM) => {
                    let _ = rustix::process::kill_process(self.main, rustix::process::Signal::TERM);
                }
                Ok(Signal::SIGUSR1) => {
                    self.kill_group();
                    if let Some(cgroup) = &self.born.cgroup {
                        cgroup.kill();
                    }
                }
                _ => {}
            }
        }
    }

    /// Ends the container's group. Its first process is not reaped yet, so the number is its own.
    fn kill_group(&self) {
        let kill = rustix::process::Signal::KILL;
        if rustix::process::kill_process_group(self.main, kill).is_err() {
            let _ = rustix::process::kill_process(self.main, kill);
        }
    }

    /// Takes the exits of all processes that ended; that of the first one, if it is among them.
    fn reap(&mut self) -> Option<(i32, Option<i32>)> {
        let mut ended = None;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == self.main {
                ended = Some(in_words(status));
            }
        }
        // How the command ended is told by the process that waited for it, where that is another.
        let told = ended.and_then(|_| next_line(&mut self.channel).ok().flatten());
        match told {
            Some(Line::Ended { code, signal }) => Some((code, signal)),
            _ => ended,
        }
    }
}

/// Reads what is there, not more than a fair share; whether the output is still open.
fn drain(output: &OwnedFd, stream: Stream, log: &mut cri_log::Writer) -> bool {
    let mut buffer = [0; 16 << 10];
    let Ok(file) = output.try_clone() else { return true };
    let mut file = File::from(file);
    for _ in 0..8 {
        match file.read(&mut buffer) {
            Ok(0) => return false,
            Ok(size) => log.push(stream, &buffer[..size], Timestamp::now()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// Ends every process that is left: those in the groups, and all that fell to us as their reaper.
fn end_all(cgroup: Option<&Cgroup>) {
    let begin = Instant::now();
    if let Some(cgroup) = cgroup {
        cgroup.kill();
    }
    while begin.elapsed() < KILL_LIMIT {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(_) => break, // no child is left
        }
        for child in children() {
            let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    if let Some(cgroup) = cgroup {
        cgroup.kill_all(KILL_LIMIT);
        cgroup.remove();
    }
}

/// Our children: not reaped by anyone else, so their numbers are theirs.
fn children() -> Vec<Pid> {
    let this = std::process::id();
    identity::all()
        .into_iter()
        .filter(|pid| identity::stat(*pid).is_some_and(|s| s.parent == this))
        .filter_map(|pid| Pid::from_raw(pid as i32))
        .collect()
}
