//! A watch as its reader sees it: a stream of batches that ends after its first error.

use crate::{error::WatchError, query::WatchBatch};
use futures_util::{Stream, StreamExt, stream};
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

/// A watch that runs; dropping it ends it. After an error it ends by itself.
pub struct Watch {
    batches: Pin<Box<dyn Stream<Item = Result<WatchBatch, WatchError>> + Send>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Stream for Watch {
    type Item = Result<WatchBatch, WatchError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.as_mut().poll_next(context)
    }
}

impl Watch {
    /// A watch that tells what a stream tells, up to its first error.
    pub fn new(
        batches: impl Stream<Item = Result<WatchBatch, WatchError>> + Send + 'static,
    ) -> Self {
        let ended = stream::unfold((Box::pin(batches), false), |(mut batches, ended)| async move {
            if ended {
                return None;
            }
            let item = batches.next().await?;
            let ended = item.is_err();
            Some((item, (batches, ended)))
        });
        Self { batches: Box::pin(ended) }
    }
}
