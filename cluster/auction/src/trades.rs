//! Whether jobs that run give up what they have for what others gain by it. Speeds and ends vary by some per cents
//! from round to round as jobs measure them, and among jobs that are about as good the best division varies with
//! them: each swap costs a pause, and no size lasts long enough to be measured.

use crate::hall::{Draft, Hall, Size, Standing};

/// What others gain has to exceed what is lost by this part, besides what the predictions may be off by.
const MARGIN: f64 = 0.1;

/// Where jobs that run shrink in `new` for the growth of others, the division in which they keep what they have,
/// unless those gain surely more than these lose. They always shrink for another's minimum. `grow` divides what is
/// left over; `value` is what a size of a job is worth, in one unit for all jobs, and `unsure` the relative standard
/// deviation of that.
///
/// Where only sums count, as in a simulation, all changes are made.
pub(crate) fn settled<'h>(
    hall: &'h Hall<'_>,
    new: Draft<'h>,
    grow: impl FnOnce(&mut Draft<'h>),
    value: impl Fn(usize, Size) -> f64,
    unsure: impl Fn(usize, Size) -> f64,
) -> Draft<'h> {
    let runs = |job: usize| {
        let bid = &hall.bids[job];
        bid.standing == Standing::Runs && bid.may_stay()
    };
    let gives = |job: &usize| runs(*job) && hall.bids[*job].keeps.grows_from(new.size(*job));
    let giving: Vec<usize> = (0..hall.bids.len()).filter(gives).collect();
    if hall.pieces.is_none() || giving.is_empty() {
        return new;
    }
    let mut kept = hall.floors();
    for (job, bid) in hall.bids.iter().enumerate() {
        let (has, gets) = (bid.keeps, new.size(job));
        if runs(job) {
            let servers = has.servers.min(gets.servers);
            kept.give(job, Size { servers, workers: has.workers.min(gets.workers) });
        } else if gets.workers > 0 {
            kept.give(job, bid.min);
        }
    }
    for job in giving {
        kept.give(job, hall.bids[job].keeps);
    }
    grow(&mut kept);
    let (mut gain, mut loss) = (0.0, 0.0);
    for job in 0..hall.bids.len() {
        let (from, to) = (kept.size(job), new.size(job));
        if from == to {
            continue;
        }
        let more = value(job, to) - value(job, from);
        let off = 1.0 + unsure(job, to);
        if more > 0.0 {
            gain += more / off;
        } else {
            loss -= more * off;
        }
    }
    if gain > loss * (1.0 + MARGIN) { new } else { kept }
}
