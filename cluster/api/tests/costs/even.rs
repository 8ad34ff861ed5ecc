//! Whether work is even: whether what is eight times as much takes about eight times as long. It is told by the time that the
//! processor spent on this thread, twice in one process: how fast or how busy the machine is changes nothing.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// How much more there is the second time.
const MORE: usize = 8;
/// How much dearer that may be: sixty-four times as dear where each entry is compared with each.
const DEARER: u32 = 24;

/// Does something to so many entries, and to an eighth of them.
pub fn is_even(many: usize, act: impl Fn(usize)) {
    act(MORE); // what is made once in a process
    let few = spent(|| act(many / MORE));
    let all = spent(|| act(many));
    assert!(all < few * DEARER, "{few:?} for an eighth of {many} entries, {all:?} for all of them");
}

fn spent(act: impl FnOnce()) -> Duration {
    let began = now();
    act();
    now().saturating_sub(began)
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}
