//! Tokens of service accounts: signed texts (JWT), as Kubernetes has them.
//!
//! ```text
//! jws      signs and verifies, ES256 alone        claims   what a token says, and whether it holds
//! keys     the cluster's, sealed in its registry   issue    a new token, for who may ask for it
//! review   who a token stands for                  held     what these are made of
//! ```
//!
//! A token is believed if a key of the cluster signed it, in its time, for its audience, while its account and the pod,
//! secret or node that it is bound to are there, with their uids. That is looked up in what this member has; only where
//! something is missing there it is asked whether the others have it.

mod claims;
mod held;
mod issue;
mod jws;
mod keys;
mod review;

pub use claims::{AccountUser, ISSUER, LONGEST_LIFE};
pub use held::{AccountError, Accounts};
pub use issue::{BoundTo, Issued, Wanted};
pub use jws::KeyError;
pub use review::Reviewed;
