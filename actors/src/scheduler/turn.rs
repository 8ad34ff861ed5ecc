//! Which of the pods that are ready are looked at in one pass.
//!
//! Those of a higher priority first, whoever waits beside them; among those of one priority who was looked at least
//! often, and then who has been due the longest. A pod that fits nowhere is put off after its turn, so that it holds up
//! nobody for longer than a pass, whatever its priority.

use super::parties::Pending;
use super::queue::Queue;
use std::cmp::Reverse;
use std::time::Instant;

/// The pods of the next pass, `most` at most, and whether there are more.
pub(super) fn turn(queue: &Queue, now: Instant, most: usize) -> (Vec<&Pending>, bool) {
    let mut ready: Vec<_> = queue.ready(now).collect();
    let is_cut = ready.len() > most;
    if is_cut {
        // Stable: who has been due the longest stays before the others.
        ready.sort_by_key(|waiting| (Reverse(waiting.pod.priority), waiting.attempts));
        ready.truncate(most);
    }
    (ready.into_iter().map(|waiting| &waiting.pod).collect(), is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::picture::tests::pod;
    use impresario_registry_api::Key;
    use impresario_runtime::clock;
    use std::time::Duration;

    proptest::proptest! {
        #[test]
        fn nobody_is_looked_at_before_one_of_a_higher_priority_or_one_who_came_before(
            pods in proptest::collection::vec((0..4_i32, 0..1_000_u64), 1..40),
            most in 1..40_usize,
        ) {
            let (start, mut queue) = (clock::now(), Queue::default());
            for (index, (priority, after)) in pods.iter().enumerate() {
                let uid = format!("p{index}");
                let mut pod = pod(&uid, 1);
                pod.priority = *priority;
                let came = start + Duration::from_millis(*after);
                queue.seen(pod, Key::new("pods", "ns", uid), bytes::Bytes::new(), 1, came);
            }
            let now = start + Duration::from_secs(1);
            let (taken, is_cut) = turn(&queue, now, most);
            proptest::prop_assert_eq!((taken.len(), is_cut), (pods.len().min(most), pods.len() > most));
            let came = |uid: &str| pods[uid[1..].parse::<usize>().unwrap()].1;
            let left = queue.ready(now).map(|it| &it.pod).filter(|it| !taken.iter().any(|t| t.uid == it.uid));
            for left in left {
                for taken in &taken {
                    let is_before = (Reverse(taken.priority), came(&taken.uid))
                        <= (Reverse(left.priority), came(&left.uid));
                    proptest::prop_assert!(is_before, "{} before {}", taken.uid, left.uid);
                }
            }
        }
    }

    #[test]
    fn one_that_was_tried_in_vain_comes_after_others_of_its_priority_and_before_those_of_a_lower_one()
     {
        let (now, mut queue) = (clock::now(), Queue::default());
        for (uid, priority) in [("tried", 5), ("new", 5), ("low", 0)] {
            let mut pod = pod(uid, 1);
            pod.priority = priority;
            queue.seen(pod, Key::new("pods", "ns", uid), bytes::Bytes::new(), 1, now);
        }
        queue.placing("tried");
        queue.failed("tried", now);
        let later = now + Duration::from_secs(60);
        let first = |most| {
            let (taken, _) = turn(&queue, later, most);
            taken.iter().map(|pod| pod.uid.clone()).collect::<Vec<_>>()
        };
        assert_eq!(first(1), ["new"]);
        assert_eq!(first(2), ["new", "tried"]);
    }
}
