//! Admission by expressions of the users: `ValidatingAdmissionPolicy` and its bindings.
//!
//! ```text
//! known    the policies and their bindings, followed by each member
//!   └─> policy   which writes they are about, what must hold, with which parameters
//!         └─> judge   whether it holds of what is seen  (a plain function)
//!               └─> chain   what a write passes, and what follows where it does not
//! ```

mod chain;
mod judge;
mod known;
mod policy;

pub use known::Policies;
