//! Suites that use a real cluster as its users do: through kubectl, the command line, sockets and
//! signals. What they share is here; what they promise is in `tests/`.
//!
//! - [`Cluster`] starts `imp up` in a folder of its own. When its owner is dropped, or the test's
//!   process ends in any way at all, `imp down --purge` leaves nothing behind.
//! - [`Kubectl`] is one of the versions that users have. A version that is missing fails the test.
//! - [`chaos`] runs the harness.
//! - [`eventually`] waits for a condition with a deadline; no test sleeps for a fixed time.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a suite fails by panicking

pub mod chaos;
mod cluster;
mod http;
mod kubectl;
mod left_out;
mod names;
mod wait;

pub use cluster::{Cluster, Settings, imp};
pub use http::{Answer, Proxy, fetch};
pub use kubectl::{Kubectl, Output, Site, VERSIONS};
pub use left_out::leave_out;
pub use names::resolve;
pub use wait::{eventually, eventually_within};

/// Makes a test of each function for each version of kubectl, each in a namespace of its own.
#[macro_export]
macro_rules! with_every_kubectl {
    ($($test:ident),+ $(,)?) => {
        $crate::with_every_kubectl!(@version kubectl_1_27 "1.27" $($test)+);
        $crate::with_every_kubectl!(@version kubectl_1_30 "1.30" $($test)+);
        $crate::with_every_kubectl!(@version kubectl_1_33 "1.33" $($test)+);
    };
    (@version $module:ident $version:literal $($test:ident)+) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    super::$test(&$crate::Site::new($version, stringify!($test)));
                }
            )+
        }
    };
}

/// Makes a test of each function with the newest kubectl: for what does not depend on it.
#[macro_export]
macro_rules! with_a_kubectl {
    ($($test:ident),+ $(,)?) => {
        mod with_a_kubectl {
            $(
                #[test]
                fn $test() {
                    super::$test(&$crate::Site::new("1.33", stringify!($test)));
                }
            )+
        }
    };
}
