//! What a program takes from its surroundings: the time, chance, and tasks.
//!
//! Nothing else in the house reads a clock of the machine, draws a number or starts a task by itself, so a whole run
//! can be repeated: on one thread with tokio's clock paused, what [`Simulated`] says is the time and the chance of
//! everything that runs on it.

pub mod clock;
pub mod random;
mod simulated;
pub mod tasks;

pub use simulated::Simulated;
