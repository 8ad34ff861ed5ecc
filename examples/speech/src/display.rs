//! What is seen while the demonstration runs: a bar for each job, and a line for each event.
//!
//! On a terminal the bars move; elsewhere, and with machine-readable output, only the events are
//! told, on standard error.

use crate::watched::Watched;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::time::Instant;

/// A size over time is drawn with these, by the number of trainers.
const LEVELS: [char; 5] = ['.', '▂', '▄', '▆', '█'];
/// How much of the past is drawn.
const WIDTH: usize = 30;

/// The display.
pub struct Display {
    since: Instant,
    bars: Option<MultiProgress>,
    jobs: Vec<(ProgressBar, String)>,
    looks: usize,
}

impl Display {
    /// Draws if `live`.
    pub fn new(live: bool, since: Instant) -> Self {
        Self { since, bars: live.then(MultiProgress::new), jobs: Vec::new(), looks: 0 }
    }

    /// Tells an event.
    pub fn say(&self, words: &str) {
        let line = format!("{:7.1} s  {words}", self.since.elapsed().as_secs_f64());
        match &self.bars {
            // A terminal that is gone is no reason to stop.
            Some(bars) if bars.println(&line).is_ok() => {}
            _ => eprintln!("{line}"),
        }
    }

    /// Draws the jobs as they are.
    pub fn draw(&mut self, jobs: &[Watched]) {
        let Some(bars) = &self.bars else { return };
        self.looks += 1;
        for (index, job) in jobs.iter().enumerate() {
            if self.jobs.len() <= index {
                let bar = bars.add(ProgressBar::new_spinner());
                let style = ProgressStyle::with_template("{prefix:>13} {spinner} {msg}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                bar.set_prefix(job.name);
                self.jobs.push((bar, String::new()));
            }
            let (bar, history) = &mut self.jobs[index];
            let trainers = job.count("trainers");
            if self.looks.is_multiple_of(4) {
                history.push(LEVELS[(trainers as usize).min(LEVELS.len() - 1)]);
                let surplus = history.chars().count().saturating_sub(WIDTH);
                *history = history.chars().skip(surplus).collect();
            }
            let number = |field: &str| {
                job.status[field].as_f64().map_or("–".to_owned(), |value| format!("{value:.3}"))
            };
            bar.set_message(format!(
                "{:9} step {:6}  loss {:>6}  accuracy {:>6}  servers {}  trainers {} {history}",
                job.status["phase"].as_str().unwrap_or("Pending"),
                job.count("step"),
                number("loss"),
                number("accuracy"),
                job.count("parameterServers"),
                trainers,
            ));
            bar.tick();
        }
    }

    /// Leaves the last picture on the screen.
    pub fn close(&mut self) {
        for (bar, _) in &self.jobs {
            bar.abandon();
        }
    }
}
