//! Who gets how many parameter servers and trainers: the rule of Optimus (Peng et al., EuroSys
//! 2018) over the bids of training jobs.
//!
//! [`loss_curve`] predicts how many steps a job still needs, [`speed`] how many it makes in a second
//! with a given [`Size`](impresario_client::protocol::training::Size), and [`round`] divides what there
//! is. Nothing here has a clock or does IO. The simulation has rules of its own (`impresario_auction`).

pub mod loss_curve;
mod nnls;
mod round;
pub mod speed;

pub use round::{Outcome, round};
