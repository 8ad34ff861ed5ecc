//! Connections that an answer has taken over, to speak something else than HTTP on them from now on.
//!
//! Whoever takes one over tells it from then on until it is done, and hears when it has to be: because the server stops,
//! because whoever is on the other side is not trusted any more, or because somebody else needs its place.

use tokio::sync::watch;

/// Comes with every request of a connection: the way to take it over.
#[derive(Debug, Clone)]
pub struct Takeover {
    takers: watch::Sender<usize>,
    over: watch::Receiver<()>,
}

/// A connection that is taken over, until this is dropped.
#[derive(Debug)]
pub struct Taken(Takeover);

/// The server's side of a connection that may be taken over. Dropping it ends who has.
#[derive(Debug)]
pub struct Watched {
    takers: watch::Receiver<usize>,
    _over: watch::Sender<()>,
}

/// For a new connection.
pub fn watched() -> (Takeover, Watched) {
    let ((takers, counted), (over, hears)) = (watch::channel(0), watch::channel(()));
    (Takeover { takers, over: hears }, Watched { takers: counted, _over: over })
}

impl Takeover {
    /// Takes the connection over.
    pub fn take(&self) -> Taken {
        self.takers.send_modify(|takers| *takers += 1);
        Taken(self.clone())
    }
}

impl Taken {
    /// Resolves when it has to be given back.
    pub async fn over(&self) {
        let mut over = self.0.over.clone();
        // Nothing is ever said but by leaving.
        while over.changed().await.is_ok() {}
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.takers.send_modify(|takers| *takers -= 1);
    }
}

impl Watched {
    /// Resolves when nobody has taken it over.
    pub async fn given_back(&mut self) {
        // Who could take it over is gone with it.
        let _ = self.takers.wait_for(|takers| *takers == 0).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_connection_is_had_until_it_is_given_back_or_the_server_lets_it_go() {
        let (takeover, mut watched) = watched();
        watched.given_back().await;
        let taken = takeover.take();
        assert!(watched.given_back().now_or_never().is_none());
        assert!(taken.over().now_or_never().is_none());
        drop(taken);
        watched.given_back().await;
        let taken = takeover.take();
        drop(watched);
        taken.over().await;
    }
}
