//! Time that goes on while the machine sleeps.
//!
//! `Instant` stands still in a suspend. What was promised for three seconds would hold for a night, though the
//! others have long gone on; so leases are counted in boot time (`CLOCK_BOOTTIME`, see clock_gettime(2)), and
//! what openraft counts in `Instant`s is not trusted for a while after the machine has slept.

use impresario_runtime::clock;
use parking_lot::Mutex;
use std::{
    ops::Add,
    time::{Duration, Instant},
};

/// A moment, as the time since the machine was started, sleep included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    /// This moment.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self(Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32))
    }

    /// The time from an earlier moment to this one; none if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, more: Duration) -> Self {
        Self(self.0 + more)
    }
}

/// The two clocks are read one after the other; less than this between them is no sleep.
const TOLERANCE: Duration = Duration::from_millis(50);

/// Notices that the machine has slept, by the clock that stood still meanwhile.
#[derive(Debug)]
pub struct Sleep {
    began: (Instant, BootTime),
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// How long the machine has slept in all.
    slept: Duration,
    /// When, awake, that was last found to have grown.
    woke: Option<Duration>,
}

impl Seen {
    /// Whether the machine has slept within the last `memory` of waking time.
    fn look(&mut self, awake: Duration, passed: Duration, memory: Duration) -> bool {
        let slept = passed.saturating_sub(awake);
        if slept > self.slept + TOLERANCE {
            self.slept = slept;
            self.woke = Some(awake);
        }
        self.woke.is_some_and(|woke| awake < woke + memory)
    }
}

impl Default for Sleep {
    fn default() -> Self {
        Self { began: (clock::now(), BootTime::now()), seen: Mutex::default() }
    }
}

impl Sleep {
    /// Whether the machine has slept since `memory` ago, as `Instant` counts.
    pub fn was_within(&self, memory: Duration) -> bool {
        // Boot time last: a pause between the two reads looks like sleep, never the other way.
        let awake = self.began.0.elapsed();
        let passed = BootTime::now().since(self.began.1);
        self.seen.lock().look(awake, passed, memory)
    }

    /// As if the machine had just slept, for a test that sends none to sleep.
    #[cfg(test)]
    pub(crate) fn pretend(&self) {
        self.seen.lock().woke = Some(self.began.0.elapsed() + Duration::from_hours(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn after_a_sleep_what_was_counted_awake_is_distrusted_for_a_while_and_then_again_after_the_next()
     {
        let mut seen = Seen::default();
        assert!(!seen.look(SECOND, SECOND + TOLERANCE / 2, SECOND));
        let night = 3600 * SECOND;
        assert!(seen.look(2 * SECOND, night, SECOND), "it has slept since the last look");
        assert!(seen.look(2 * SECOND + SECOND / 2, night + SECOND / 2, SECOND));
        assert!(!seen.look(3 * SECOND, night + SECOND, SECOND));
        assert!(seen.look(4 * SECOND, 2 * night, SECOND));
    }

    /// Set where this test is run a second time, to tell what its clock says.
    const TELLS: &str = "IMPRESARIO_TELLS_BOOT_TIME";

    #[test]
    fn what_leases_are_counted_in_goes_on_while_the_machine_sleeps() {
        if std::env::var_os(TELLS).is_some() {
            println!("boot time: {} s", BootTime::now().0.as_secs());
            return;
        }
        // Nobody sends a machine to sleep for a test. What a sleep adds to this clock alone a time namespace adds,
        // too: see time_namespaces(7).
        let night = 100_000;
        let before = BootTime::now();
        let mut again = std::process::Command::new("unshare");
        again.args(["--time", "--fork", "--boottime", &night.to_string()]);
        again.arg(std::env::current_exe().unwrap()).env(TELLS, "yes");
        let name = "clock::tests::what_leases_are_counted_in_goes_on_while_the_machine_sleeps";
        let output = again.args(["--exact", name, "--nocapture"]).output();
        let told = output.ok().filter(|output| output.status.success()).and_then(|output| {
            let text = String::from_utf8(output.stdout).unwrap();
            let (_, rest) = text.split_once("boot time: ")?;
            rest.split_once(" s")?.0.parse::<u64>().ok()
        });
        let Some(told) = told else {
            let why = "a time namespace cannot be made here, which takes root and unshare";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "left out with CI=true: {why}");
            println!("left out: {why}");
            return;
        };
        assert!(told >= before.0.as_secs() + night, "{told} s, {before:?} before");
    }

    #[test]
    fn boot_time_goes_on() {
        let before = BootTime::now();
        let after = BootTime::now();
        assert!(after >= before && before.since(after) == Duration::ZERO || after == before);
        // A thread that is kept waiting between its two looks at the clocks takes that for a sleep: not each time.
        assert!((0..100).any(|_| !Sleep::default().was_within(SECOND)));
    }
}
