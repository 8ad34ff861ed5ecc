//! Containers that only pretend: nothing is started, all is answered.
//!
//! The instrument for what a control plane costs: many nodes in one process, with the same actors above this driver as
//! above the others. A container runs from its start until it is stopped, or as long as its pod's annotations say:
//!
//! | annotation | meaning |
//! |---|---|
//! | `impresario.dev/hollow-run-for` | how long the pod's containers run, such as `500ms`, `30s` or `5m`; for ever without |
//! | `impresario.dev/hollow-exit-code` | how they end then, 0 to 255; 0 without |
//! | `impresario.dev/hollow-usage` | how much of the CPU and memory that they ask for they say that they use, such as `80%`, 1,000 % at most; 50 % without |
//!
//! Init containers end at once, and well. Every command in a container that runs ends with 0 and says nothing; a log is
//! one line. What a container is at a moment is computed from its start and that moment: no task runs for it. Nothing is
//! on the disk, so that for its pods the end of the process is a restart of their machine.

mod range;

use impresario_ambient::clock;
pub use range::{is_pretended, pod_range};

use crate::container::{
    Answer, Attached, ContainerDriver, ContainerId, ContainerSpec, ContainerState, ContainerStats,
    DriverError, Executed, Exit, Found, LogLine, LogOptions, LogStream, PodSandbox, StartError,
    Started, Stream, Wanted,
};
use futures_util::{FutureExt, StreamExt, future, stream};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// How long the containers of a pod run.
pub const RUN_FOR: &str = "impresario.dev/hollow-run-for";
/// With which code they end then.
pub const EXIT_CODE: &str = "impresario.dev/hollow-exit-code";

/// How much of what the containers of a pod ask for they say that they use.
pub const USAGE: &str = "impresario.dev/hollow-usage";

/// That without the annotation, in percent.
const USUAL_PERCENT: u32 = 50;
/// The most that can be said.
const MOST_PERCENT: u32 = 1000;

/// SIGKILL's and SIGTERM's numbers.
const KILL: i32 = 9;
const TERM: i32 = 15;

/// The driver of one node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct HollowDriver(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    pods: BTreeSet<String>,
    containers: BTreeMap<ContainerId, Pretended>,
}

/// A container that was started, in name.
#[derive(Debug)]
struct Pretended {
    pod_uid: String,
    name: String,
    attempt: u32,
    started_at: Timestamp,
    /// Thousandths of a CPU that it pretends to use.
    cpu_milli: u64,
    /// Memory that it pretends to use.
    memory_bytes: u64,
    /// When it ends by itself, and how.
    end: Option<(Instant, Exit)>,
    /// How it was ended before that.
    stopped: watch::Sender<Option<Exit>>,
}

impl Pretended {
    /// How it has ended by `now`, if it has.
    fn exit(&self, now: Instant) -> Option<Exit> {
        let stopped = self.stopped.borrow().clone();
        let by_itself = || self.end.as_ref().filter(|(when, _)| *when <= now);
        stopped.or_else(|| by_itself().map(|(_, exit)| exit.clone()))
    }

    fn state(&self, now: Instant) -> ContainerState {
        match self.exit(now) {
            Some(exit) => ContainerState::Exited(exit),
            None => ContainerState::Running { started_at: self.started_at, pid: 0 },
        }
    }

    /// What it pretends to use, and to have used since its start; nothing once it has ended.
    fn stats(&self, now: Instant) -> ContainerStats {
        if self.exit(now).is_some() {
            return ContainerStats::default();
        }
        let since = clock::timestamp().duration_since(self.started_at);
        let since = Duration::try_from(since).unwrap_or_default();
        let nanos = since.as_nanos().saturating_mul(u128::from(self.cpu_milli)) / 1000;
        ContainerStats {
            cpu: Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)),
            memory_bytes: self.memory_bytes,
            processes: 1,
        }
    }

    /// Ends it by a signal, if it has not ended; how it ended.
    fn stop(&self, signal: i32, now: Instant) -> Exit {
        if let Some(exit) = self.exit(now) {
            return exit;
        }
        let exit = exit(128 + signal, Some(signal), self.started_at, clock::timestamp());
        self.stopped.send_replace(Some(exit.clone()));
        exit
    }
}

fn exit(code: i32, signal: Option<i32>, started_at: Timestamp, finished_at: Timestamp) -> Exit {
    Exit {
        code,
        signal,
        started_at: Some(started_at),
        finished_at: finished_at.max(started_at),
        reason: Exit::reason_for(code, false).to_owned(),
        message: String::new(),
    }
}

/// How long a pod's containers run and how they end, as its annotations say.
fn ending(annotations: &BTreeMap<String, String>) -> Result<Option<(Duration, i32)>, StartError> {
    let wrong = |name: &str, text: &str, right: &str| StartError::Config {
        what: format!("annotation {name}: {text:?} is no {right}"),
    };
    let code = match annotations.get(EXIT_CODE) {
        Some(text) => {
            text.parse::<u8>().map_err(|_| wrong(EXIT_CODE, text, "code from 0 to 255"))?
        }
        None => 0,
    };
    let Some(text) = annotations.get(RUN_FOR) else { return Ok(None) };
    let right = "duration of at most a year such as 500ms, 30s or 5m";
    let time = duration(text).ok_or_else(|| wrong(RUN_FOR, text, right))?;
    Ok(Some((time, i32::from(code))))
}

/// How much of what they ask for the containers of a pod use, in percent, as its annotations say.
fn usage(annotations: &BTreeMap<String, String>) -> Result<u32, StartError> {
    let Some(text) = annotations.get(USAGE) else { return Ok(USUAL_PERCENT) };
    let read = text.strip_suffix('%').and_then(|number| number.parse::<u32>().ok());
    read.filter(|percent| *percent <= MOST_PERCENT).ok_or_else(|| StartError::Config {
        what: format!("annotation {USAGE}: {text:?} is no share from 0% to {MOST_PERCENT}%"),
    })
}

/// A whole number and a unit.
fn duration(text: &str) -> Option<Duration> {
    const YEAR: Duration = Duration::from_hours(365 * 24);
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let millis = number.parse::<u64>().ok()?.checked_mul(millis)?;
    Some(Duration::from_millis(millis)).filter(|time| *time <= YEAR)
}

impl HollowDriver {
    /// A driver that knows of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at a container.
    fn with<T>(
        &self,
        id: &ContainerId,
        look: impl FnOnce(&Pretended) -> T,
    ) -> Result<T, DriverError> {
        let known = self.0.lock();
        known.containers.get(id).map(look).ok_or_else(|| gone(id))
    }

    fn begin(&self, spec: &ContainerSpec) -> Result<Started, StartError> {
        let id = ContainerId(format!("{}/{}/{}", spec.pod.uid, spec.name, spec.attempt));
        let (now, started_at) = (Instant::now(), clock::timestamp());
        let ending =
            if spec.is_init { Some((Duration::ZERO, 0)) } else { ending(&spec.pod.annotations)? };
        let percent = u64::from(usage(&spec.pod.annotations)?);
        let asked = &spec.resources;
        let share = |whole: u64| whole.saturating_mul(percent) / 100;
        let end = ending.map(|(time, code)| {
            let lasted = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
            let finished_at = started_at.checked_add(lasted).unwrap_or(Timestamp::MAX);
            (now + time, exit(code, None, started_at, finished_at))
        });
        let mut known = self.0.lock();
        if known.containers.contains_key(&id) {
            return Err(StartError::Exists { id });
        }
        known.pods.insert(spec.pod.uid.clone());
        let pretended = Pretended {
            pod_uid: spec.pod.uid.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            started_at,
            cpu_milli: share(asked.cpu_request_milli),
            memory_bytes: share(asked.memory_request_bytes),
            end,
            stopped: watch::Sender::new(None),
        };
        known.containers.insert(id.clone(), pretended);
        Ok(Started { id, started_at, warnings: Vec::new() })
    }

    /// Ends what runs of a pod, so that who waits hears of it, and forgets it.
    fn forget(&self, uid: &str) {
        let mut known = self.0.lock();
        let now = Instant::now();
        known.containers.retain(|_, container| {
            let is_other = container.pod_uid != uid;
            if !is_other {
                container.stop(KILL, now);
            }
            is_other
        });
        known.pods.remove(uid);
    }
}

fn gone(id: &ContainerId) -> DriverError {
    DriverError::NoContainer { id: id.clone() }
}

impl ContainerDriver for HollowDriver {
    fn name(&self) -> &'static str {
        "hollow"
    }

    fn is_hollow(&self) -> bool {
        true
    }

    fn annotations(&self) -> &'static [&'static str] {
        &[RUN_FOR, EXIT_CODE, USAGE]
    }

    fn prepare_pod(&self, pod: PodSandbox) -> Answer<'_, ()> {
        self.0.lock().pods.insert(pod.uid);
        future::ready(Ok(())).boxed()
    }

    fn remove_pod<'a>(&'a self, uid: &'a str) -> Answer<'a, ()> {
        self.forget(uid);
        future::ready(Ok(())).boxed()
    }

    fn start(&self, spec: ContainerSpec) -> Answer<'_, Started, StartError> {
        future::ready(self.begin(&spec)).boxed()
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> Answer<'a, Exit> {
        let signal = if grace.is_zero() { KILL } else { TERM };
        let now = Instant::now();
        future::ready(self.with(id, |container| container.stop(signal, now))).boxed()
    }

    fn inspect<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ContainerState> {
        let now = Instant::now();
        future::ready(self.with(id, |container| container.state(now))).boxed()
    }

    fn wait<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Exit> {
        async move {
            let found = self.with(id, |it| (it.stopped.subscribe(), it.end.clone()));
            let (mut stopped, end) = found?;
            let by_itself = async {
                match end {
                    Some((when, exit)) => {
                        sleep_until(when).await;
                        exit
                    }
                    None => future::pending().await,
                }
            };
            tokio::select! {
                biased;
                told = stopped.wait_for(Option::is_some) => {
                    told.ok().and_then(|exit| exit.clone()).ok_or_else(|| gone(id))
                }
                exit = by_itself => Ok(exit),
            }
        }
        .boxed()
    }

    fn logs<'a>(&'a self, id: &'a ContainerId, options: LogOptions) -> Answer<'a, LogStream> {
        async move {
            let started_at = self.with(id, |container| container.started_at)?;
            let text = format!("{id} only pretends to run: its node is hollow");
            let room = options.limit_bytes.unwrap_or(u64::MAX);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let line = LogLine {
                time: started_at,
                stream: Stream::Stdout,
                bytes: text.into_bytes().into_iter().take(room).collect(),
                partial: false,
            };
            let is_wanted = options.tail != Some(0)
                && room > 0
                && options.since.is_none_or(|since| started_at >= since);
            let line = stream::iter(is_wanted.then_some(Ok(line)));
            if !options.follow {
                return Ok(line.boxed());
            }
            let (driver, id) = (self.clone(), id.clone());
            let end = stream::once(async move { drop(driver.wait(&id).await) });
            Ok(line.chain(end.filter_map(|()| future::ready(None))).boxed())
        }
        .boxed()
    }

    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        _: Vec<String>,
        _: Duration,
    ) -> Answer<'a, Executed> {
        let now = Instant::now();
        let ended = self.with(id, |container| container.exit(now).is_some());
        let answer = ended.and_then(|ended| {
            if ended {
                return Err(DriverError::NotRunning { id: id.clone() });
            }
            Ok(Executed { code: 0, output: String::new() })
        });
        future::ready(answer).boxed()
    }

    fn run<'a>(&'a self, id: &'a ContainerId, _: Wanted) -> Answer<'a, Attached> {
        let what = "the hollow driver only pretends to run containers: nothing can be run in one"
            .to_owned();
        let answer = self.with(id, |_| ()).and(Err(DriverError::NotDone { what }));
        future::ready(answer).boxed()
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        let mut known = self.0.lock();
        let now = Instant::now();
        let answer = match known.containers.get(id).map(|container| container.exit(now)) {
            None => Err(gone(id)),
            Some(None) => Err(DriverError::Running { id: id.clone() }),
            Some(Some(_)) => {
                known.containers.remove(id);
                Ok(())
            }
        };
        future::ready(answer).boxed()
    }

    fn list(&self) -> Answer<'_, Vec<Found>> {
        let known = self.0.lock();
        let now = Instant::now();
        let found = known.containers.iter().map(|(id, container)| Found {
            id: id.clone(),
            pod_uid: container.pod_uid.clone(),
            container: container.name.clone(),
            attempt: container.attempt,
            state: container.state(now),
        });
        future::ready(Ok(found.collect())).boxed()
    }

    fn pods(&self) -> Answer<'_, BTreeSet<String>> {
        future::ready(Ok(self.0.lock().pods.clone())).boxed()
    }

    fn stats<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ContainerStats> {
        let now = Instant::now();
        future::ready(self.with(id, |container| container.stats(now))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_what_is_asked_for_is_a_whole_percentage() {
        let of = |text: &str| usage(&BTreeMap::from([(USAGE.to_owned(), text.to_owned())]));
        assert_eq!(usage(&BTreeMap::new()).unwrap(), USUAL_PERCENT);
        assert_eq!([of("0%"), of("80%"), of("1000%")].map(Result::unwrap), [0, 80, 1000]);
        for bad in ["", "%", "80", "-1%", "1.5%", "1001%", "80 %"] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit_and_not_too_long() {
        let of = |text: &str| duration(text).map(|time| time.as_millis());
        assert_eq!(
            [of("0s"), of("500ms"), of("2m"), of("1h")].map(Option::unwrap),
            [0, 500, 120_000, 3_600_000]
        );
        for bad in ["", "s", "5", "-1s", "1.5s", "5 s", "5d", "9000h", "99999999999999999999s"] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
