//! How many tokens a pod gets. Its node asks for one each time that it prepares the pod, and for as many as it
//! likes if somebody has its credential: each is a write, and stays until the next sweep.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Tokens that a pod gets at once: of a node that fails to prepare it again and again, or is started anew.
const AT_ONCE: u32 = 16;
/// How long until it gets one more.
const ONE_MORE: Duration = Duration::from_secs(5);
/// Pods of which nothing needs to be remembered are forgotten when there are so many.
const REMEMBERED: usize = 4096;

/// What pods got lately. Held for each activation of the authority: a new one begins with nothing.
#[derive(Debug, Default)]
pub(super) struct Rations(Mutex<Taken>);

#[derive(Debug)]
struct Taken {
    /// By uid, when the pod will have its whole ration again.
    whole_at: HashMap<String, Instant>,
    /// At so many pods it is looked who can be forgotten.
    forget_at: usize,
}

impl Default for Taken {
    fn default() -> Self {
        Self { whole_at: HashMap::new(), forget_at: REMEMBERED }
    }
}

impl Rations {
    /// Whether the pod of this uid, which there is, gets one more now.
    pub(super) fn take(&self, uid: &str, now: Instant) -> bool {
        let mut taken = self.0.lock();
        if taken.whole_at.len() >= taken.forget_at {
            taken.whole_at.retain(|_, whole_at| *whole_at > now);
            taken.forget_at = (taken.whole_at.len() * 2).max(REMEMBERED);
        }
        let before = taken.whole_at.get(uid).copied().unwrap_or(now).max(now);
        let whole_at = before + ONE_MORE;
        if whole_at > now + ONE_MORE * AT_ONCE {
            return false;
        }
        taken.whole_at.insert(uid.to_owned(), whole_at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_runtime::clock;

    #[test]
    fn a_pod_gets_some_tokens_at_once_and_then_one_now_and_then_whatever_others_got() {
        let (rations, now) = (Rations::default(), clock::now());
        let got = |uid: &str, at: Instant| (0..100).filter(|_| rations.take(uid, at)).count();
        assert_eq!(got("a", now), AT_ONCE as usize);
        assert_eq!(got("b", now), AT_ONCE as usize);
        assert_eq!(got("a", now + ONE_MORE * 3), 3);
        assert_eq!(got("a", now + ONE_MORE * 100), AT_ONCE as usize);
    }

    #[test]
    fn pods_that_have_their_whole_ration_are_not_remembered() {
        let (rations, now) = (Rations::default(), clock::now());
        for pod in 0..REMEMBERED * 4 {
            assert!(rations.take(&pod.to_string(), now + ONE_MORE * u32::try_from(pod).unwrap()));
        }
        assert!(rations.0.lock().whole_at.len() <= REMEMBERED);
    }
}
