//! Surroundings that can be repeated.

use super::{
    clock::{self, Base},
    random,
};
use rand::{SeedableRng, rngs::StdRng};
use std::{marker::PhantomData, time::SystemTime};

/// Until it is dropped, this thread's numbers come from a seed, and its time of day goes with tokio's clock.
///
/// Two runs that begin with the same seed and time, on one thread and with tokio's clock paused, take the same course.
#[derive(Debug)]
pub struct Simulated {
    before: (Option<Base>, Option<StdRng>),
    /// It is the thread's own.
    _here: PhantomData<*const ()>,
}

impl Simulated {
    /// Begins, at this time of day.
    #[must_use = "it ends when it is dropped"]
    pub fn begin(seed: u64, wall: SystemTime) -> Self {
        let base = clock::rebase(Some((wall, clock::now())));
        let seeded = random::reseed(Some(StdRng::seed_from_u64(seed)));
        Self { before: (base, seeded), _here: PhantomData }
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        clock::rebase(self.before.0.take());
        random::reseed(self.before.1.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks;
    use std::time::Duration;

    /// What a program sees that draws, waits and starts tasks by what it draws.
    async fn course(seed: u64) -> Vec<(SystemTime, u64)> {
        let _simulated = Simulated::begin(seed, SystemTime::UNIX_EPOCH);
        let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..20 {
            let told = told.clone();
            tasks::spawn(async move {
                tokio::time::sleep(Duration::from_millis(random::random_range(1..1000))).await;
                told.send((clock::wall(), random::random())).unwrap();
            });
        }
        drop(told);
        let mut seen = Vec::new();
        while let Some(one) = hears.recv().await {
            seen.push(one);
        }
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn a_seed_repeats_a_run_to_the_last_number_and_another_one_does_not() {
        let first = course(7).await;
        assert_eq!(first, course(7).await);
        assert_ne!(first, course(8).await);
        assert!(first.is_sorted_by_key(|(at, _)| *at));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_day_goes_with_the_clock_until_the_simulation_ends() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_hours(12);
        let simulated = Simulated::begin(0, noon);
        let began = clock::now();
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(clock::now() - began, Duration::from_hours(1));
        assert_eq!(clock::wall(), noon + Duration::from_hours(1));
        assert_eq!(clock::timestamp().as_second(), 13 * 3600);
        drop(simulated);
        assert!(clock::wall() > noon + Duration::from_hours(24));
    }

    #[test]
    fn without_a_simulation_nobody_foresees_a_number() {
        assert_ne!(random::random::<u128>(), random::random::<u128>());
        assert!((5..6).contains(&random::random_range(5..6)));
    }
}
