//! Waiting for a descriptor of the kernel (a pidfd, an inotify) without a thread.

use std::{io, os::fd::OwnedFd};
use tokio::io::{Interest, unix::AsyncFd};

/// Registers a descriptor, to be told when it is readable.
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // Deprecated for types whose descriptor may change under tokio; an OwnedFd's does not, and
    // what replaces it is unsafe.
    #[expect(deprecated)]
    AsyncFd::with_interest(fd, Interest::READABLE)
}
