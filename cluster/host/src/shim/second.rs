//! The second stage, as its keeper has it: from the moment it is spawned until its command executes.

use super::gpu_lock::{self, Unlocked};
use super::line::{Line, next_line};
use super::namespaces;
use crate::process::{
    cgroup::Cgroup,
    identity::ProcessKey,
    record::{self, Born, Failed, Order},
};
use jiff::Timestamp;
use nix::fcntl::Flock;
use rustix::process::Pid;
use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

/// How long the second stage may take to reach its command: it mounts at most.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How much of what it says before it is lost is told.
const SAID_LIMIT: u64 = 4096;

/// What a container that is being started has of the machine.
#[derive(Default)]
pub(super) struct Held {
    pub cgroup: Option<Cgroup>,
    pub gpus: Vec<Flock<File>>,
}

/// The second stage, which waits for its order.
pub(super) struct Second {
    pub main: Pid,
    pub channel: BufReader<UnixStream>,
    pub outputs: [Option<OwnedFd>; 2],
    /// The files of its GPUs, which it has open, too, and so has its command: should this process be killed, they are
    /// locked for as long as anything of the container is left.
    gpus: Vec<Unlocked>,
    /// Whether it is the first process of a namespace, and starts its command instead of becoming it.
    is_apart: bool,
}

impl Second {
    pub fn spawn(order: &Order) -> Result<Self, Failed> {
        let (channel, theirs) = UnixStream::pair().map_err(system("making a socket"))?;
        let gpus = gpu_lock::open(&order.spec.gpus)?;
        gpus.iter().try_for_each(Unlocked::pass_on).map_err(system("handing on the GPUs"))?;
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
        let is_apart = namespaces::children_are_apart();
        Ok(Self { main, channel: BufReader::new(channel), outputs, gpus, is_apart })
    }

    /// Makes what the container needs outside of it, hands the order on, and waits until its command executes or is
    /// known not to. Where this fails, who called ends what is in the control group, and lets go of what is held after.
    pub fn begin(&mut self, folder: &Path, order: Order, held: &mut Held) -> Result<Born, Failed> {
        record::reserve(folder, "exit.json").map_err(system("setting room aside for its exit"))?;
        held.gpus = gpu_lock::lock(std::mem::take(&mut self.gpus))?;
        let mut warnings = Vec::new();
        held.cgroup = make_cgroup(&order, &mut warnings);
        let number = self.main.as_raw_nonzero().get() as u32;
        // Before it can do anything: by this it is found should this process be killed now.
        let process = ProcessKey::of(number)
            .ok_or_else(|| system("reading /proc")(io::ErrorKind::NotFound.into()))?;
        record::write(folder, "first.json", &process).map_err(system("writing first.json"))?;
        // The kernel takes up to 15 ms to move a process: the time in which that one loads.
        if let Some(cgroup) = &held.cgroup {
            cgroup.take_in(number).map_err(system("joining the control group"))?;
        }
        let order = Order { cgroup: held.cgroup.clone(), ..order };
        self.talk(&order, &mut warnings)?;
        let cgroup = held.cgroup.clone();
        let born = Born { process, started_at: Timestamp::now(), warnings, cgroup };
        record::write(folder, "born.json", &born).map_err(system("writing born.json"))?;
        Ok(born)
    }

    fn talk(&mut self, order: &Order, warnings: &mut Vec<String>) -> Result<(), Failed> {
        let channel = self.channel.get_mut();
        let asked =
            serde_json::to_vec(order).map_err(|e| system("encoding the order")(e.into()))?;
        channel.set_read_timeout(Some(START_LIMIT)).map_err(system("setting a deadline"))?;
        channel.set_write_timeout(Some(START_LIMIT)).map_err(system("setting a deadline"))?;
        channel.write_all(&asked).map_err(system("handing on the order"))?;
        channel.shutdown(Shutdown::Write).map_err(system("handing on the order"))?;
        let lost = |cause: &str| Failed::System {
            what: "starting the command".into(),
            cause: cause.to_owned(),
        };
        loop {
            let line = next_line(&mut self.channel);
            match line.map_err(system("waiting for the command to execute"))? {
                Some(Line::Warning(warning)) => warnings.push(warning),
                Some(Line::Failed(failed)) => return Err(failed),
                None if self.is_apart => return Err(lost("the container's first process is gone")),
                Some(Line::Began) | None => return Ok(()), // closed by execve
                Some(Line::Ended { .. }) => return Err(lost("it ended before it began")),
            }
        }
    }

    /// Adds to why it does not start what it has said itself: only it knows why it was lost. It has ended by now.
    pub fn explain(&self, failed: Failed) -> Failed {
        let Failed::System { what, cause } = failed else { return failed };
        let mut said = Vec::new();
        if let Some(Ok(errors)) = self.outputs[1].as_ref().map(OwnedFd::try_clone) {
            // What is not there yet will not come.
            let _ = File::from(errors).take(SAID_LIMIT).read_to_end(&mut said);
        }
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        let cause = if said.is_empty() { cause } else { format!("{cause}; it said: {said}") };
        Failed::System { what, cause }
    }
}

pub(super) fn system(what: &str) -> impl FnOnce(io::Error) -> Failed {
    move |cause| Failed::System { what: what.to_owned(), cause: cause.to_string() }
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
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
