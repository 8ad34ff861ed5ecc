//! Control first: whoever else writes on a connection waits while its control lane has something to write.
//!
//! QUIC's priorities order what lies in the send buffer. On a slow link that buffer is full, and whoever asks for room
//! first gets it; here the others do not ask while the control lane does.

use quinn::{SendStream, WriteError};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// How much is written before control is let by again.
const TURN_BYTES: usize = 64 << 10;

#[derive(Default)]
pub(crate) struct Urgent {
    writing: AtomicBool,
    done: Notify,
}

struct Writing<'a>(&'a Urgent);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.writing.store(false, Ordering::Release);
        self.0.done.notify_waiters();
    }
}

impl Urgent {
    /// Writes for the control lane.
    pub(crate) async fn write_first(
        &self,
        stream: &mut SendStream,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        self.writing.store(true, Ordering::Release);
        let _writing = Writing(self);
        stream.write_all(bytes).await
    }

    /// Writes for anybody else.
    pub(crate) async fn write_after(
        &self,
        stream: &mut SendStream,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        for turn in bytes.chunks(TURN_BYTES) {
            self.give_way().await;
            stream.write_all(turn).await?;
        }
        Ok(())
    }

    async fn give_way(&self) {
        while self.writing.load(Ordering::Acquire) {
            let done = self.done.notified();
            tokio::pin!(done);
            done.as_mut().enable();
            if !self.writing.load(Ordering::Acquire) {
                return;
            }
            done.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn others_wait_while_control_writes_and_no_longer() {
        let urgent = Urgent::default();
        assert!(urgent.give_way().now_or_never().is_some());
        urgent.writing.store(true, Ordering::Release);
        let writing = Writing(&urgent);
        let waiting = urgent.give_way();
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(writing);
        waiting.await;
    }
}
