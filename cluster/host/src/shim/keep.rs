//! First stage: starts the container, keeps its output, reaps its processes, records its exit.

use super::first::in_words;
use super::line::{Line, next_line};
use super::second::{Held, Second, system};
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
    io::{self, BufReader, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

/// How long output is still read when every process is gone but the pipe is open elsewhere.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// The longest pause before it is tried once more to end what outlives SIGKILL.
const KILL_AGAIN: Duration = Duration::from_secs(1);

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
    // One that is left without an order ends.
    let mut second = Second::spawn(&order)?;
    let mut held = Held::default();
    let log = cri_log::Writer::open(folder.join("log"), order.spec.log);
    let begun = log.map_err(system("opening the log"));
    match begun.and_then(|log| Ok((log, second.begin(folder, order, &mut held)?))) {
        Ok((log, born)) => {
            let Second { main, channel, outputs, .. } = second;
            Ok(Started { born, main, channel, signals, outputs, log, _gpus: held.gpus })
        }
        Err(failed) => {
            end_all(held.cgroup.as_ref());
            // Not before all of the container has ended: nobody else has its GPUs until then.
            drop(held);
            Err(second.explain(failed))
        }
    }
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

/// Ends every process that is left: those in the groups, and all that fell to us as their reaper. One that hangs in the
/// kernel outlives that: until it is gone the container has not ended, and its GPUs are not let go.
fn end_all(cgroup: Option<&Cgroup>) {
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(cgroup) = cgroup {
            cgroup.kill();
        }
        if !reap_all() && cgroup.is_none_or(|cgroup| cgroup.processes().is_empty()) {
            break;
        }
        for child in children() {
            let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(KILL_AGAIN);
    }
    if let Some(cgroup) = cgroup {
        cgroup.remove();
    }
}

/// Takes the exits of all children that have ended; whether there are others.
fn reap_all() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false, // no child is left
        }
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
