//! What a namespace or the cluster lets its objects ask for, in plain functions of the objects.
//!
//! ```text
//! priority   which class a new pod is of, and what that makes of it
//! amounts    what a pod asks for and may use, as a whole
//! limits     LimitRange: what is given, and what is refused
//! quota      ResourceQuota: what an object counts for, and whether there is room
//! security   pod security levels: what a pod may do to its node
//! ```

pub mod amounts;
pub mod limits;
pub mod priority;
pub mod quota;
pub mod security;
