//! Why a job gets what it gets, in words for people.

use super::wire::in_hall;
use super::worth::Believed;
use impresario_auction::hall::{self, Hall, LONGEST_SECONDS, Worth};
use impresario_client::protocol::resources::Resources;
use impresario_client::protocol::training::{Bid, Size};

/// A round that has been decided; all in the order of arrival.
pub(super) struct Reasons<'a> {
    pub(super) bids: &'a [&'a Bid],
    pub(super) worth: &'a [Believed],
    pub(super) hall: &'a Hall<'a>,
    pub(super) sizes: &'a [hall::Size],
    pub(super) free: &'a [Resources],
}

impl Reasons<'_> {
    /// What a job lacks for its minimum beside those of the others.
    pub(super) fn missing(&self, job: usize) -> String {
        let bid = self.bids[job];
        let mut rest = Resources::default();
        self.free.iter().for_each(|node| rest.add(node));
        self.bids.iter().for_each(|other| rest.add(&taken(other, other.current)));
        for (other, size) in self.bids.iter().zip(self.sizes) {
            if size.workers > 0 {
                rest.subtract(&taken(other, other.min));
            }
        }
        let needed = taken(bid, bid.min);
        let amount = |of: &Resources, name: &str| match name {
            "cpu" => format!("{}m", of.get(name)),
            _ => of.get(name).to_string(),
        };
        let short: Vec<String> = rest
            .short_of(&needed)
            .into_iter()
            .map(|name| format!("{name} {} of {}", amount(&rest, name), amount(&needed, name)))
            .collect();
        let Size { parameter_servers, trainers } = bid.min;
        let what = format!("{parameter_servers} parameter servers and {trainers} trainers at once");
        if !short.is_empty() {
            return format!("{what}; there is only {}", short.join(", "));
        }
        let has_more = |(other, size): (&&Bid, &hall::Size)| size.grows_from(in_hall(other.min));
        if self.bids.iter().zip(self.sizes).any(has_more) {
            format!("{what}: no nodes have room for pods of this size beside what others gain by")
        } else {
            format!("{what}: no nodes have room for pods of this size")
        }
    }

    /// Why the size of a job becomes what it becomes.
    pub(super) fn change(&self, job: usize) -> String {
        let (bid, size) = (self.bids[job], self.sizes[job]);
        if let Some(doubt) = self.worth[job].doubt() {
            return format!("{doubt}: the job gets no more than a fair share");
        }
        if bid.current.trainers == 0 {
            return "the job arrived and there is room for it".to_owned();
        }
        if size.grows_from(in_hall(bid.current)) {
            let seconds = |size| self.worth[job].seconds(size).unwrap_or(LONGEST_SECONDS);
            let (now, then) = (seconds(in_hall(bid.current)), seconds(size));
            let off = (self.worth[job].uncertainty(size) * 100.0).round();
            let off = if off > 0.0 { format!(" ± {off:.0} %") } else { String::new() };
            return format!("predicted to finish in {then:.1} s instead of {now:.1} s{off}");
        }
        let winners: Vec<String> = self
            .bids
            .iter()
            .zip(&self.hall.bids)
            .zip(self.sizes)
            .filter(|((_, in_hall), size)| size.grows_from(in_hall.current))
            .map(|((other, _), _)| format!("{}/{}", other.namespace, other.name))
            .collect();
        if winners.is_empty() {
            "the job holds more than it may".to_owned()
        } else {
            format!("more is gained by giving to {}", winners.join(", "))
        }
    }
}

/// What a job of this size takes.
pub(super) fn taken(bid: &Bid, size: Size) -> Resources {
    let mut all = times(&bid.parameter_server, size.parameter_servers);
    all.add(&times(&bid.trainer, size.trainers));
    all
}

/// What so many pods take.
fn times(pod: &Resources, count: u32) -> Resources {
    let all = |amount: u64| amount.saturating_mul(u64::from(count));
    Resources {
        cpu_milli: all(pod.cpu_milli),
        memory_bytes: all(pod.memory_bytes),
        pods: all(pod.pods),
        extended: pod.extended.iter().map(|(name, amount)| (name.clone(), all(*amount))).collect(),
    }
}
