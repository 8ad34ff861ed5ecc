//! Which of the processes that share a socket for datagrams reads from it.
//!
//! One does, so that the datagrams of a client come to one process, which knows the endpoint that they go to. The
//! others look whether it does: a datagram that lies unread from one look to the next says that the reader is
//! stopped, stuck or gone, and whoever sees it reads from then on. So nothing waits longer than two looks, and what
//! waited in the kernel is not lost. The clients that the earlier reader knew are new to the next one: an endpoint
//! sees them come from another port, and without affinity it may be another endpoint.
//!
//! Who reads is written on the socket itself, where all see it at once who have it, so that one that was stopped knows
//! before it reads again that its turn is over. The place is the socket's time limit for reading (`SO_RCVTIMEO`,
//! socket(7)), which means nothing where nobody ever blocks: each process writes a number of its own, the last counts.

use impresario_ambient::random;
use nix::sys::{
    socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns},
    time::TimeSpec,
};
use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};

/// How often others look whether the reader reads.
const LOOK: Duration = Duration::from_millis(500);

/// A socket for datagrams, from which one of those who have it reads at a time.
#[derive(Debug)]
pub(super) struct Turns {
    socket: UdpSocket,
    /// The number of this process, as it is written.
    own: Duration,
}

impl Turns {
    /// A socket at an address that nobody has, and nobody is given beside it; the first turn is this process's.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        // By the time when it came one datagram is told from another of the same words.
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        let turns = Self::join(socket)?;
        turns.take()?;
        Ok(turns)
    }

    /// A socket from which another process reads.
    pub(super) fn join(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // More than there can be processes, and fewer than the kernel's longest time.
        let number = random::random_range(1..=u32::MAX);
        Ok(Self { socket, own: Duration::from_secs(number.into()) })
    }

    /// The socket.
    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Whether this process is the one that reads.
    pub(super) fn is_own(&self) -> bool {
        self.socket.read_timeout().is_ok_and(|reader| reader == Some(self.own))
    }

    /// Waits until it is, and takes the turn of one that does not read.
    pub(super) async fn come(&self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = None;
        while !self.is_own() {
            looks.tick().await;
            let oldest = self.oldest();
            if oldest.is_some()
                && oldest == seen
                && let Err(error) = self.take()
            {
                tracing::warn!(%error, "a service's datagrams cannot be taken from a node that does not read them");
            }
            seen = oldest;
        }
    }

    fn take(&self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(self.own))
    }

    /// When the oldest datagram came that nobody has read yet.
    fn oldest(&self) -> Option<TimeSpec> {
        let mut byte = [0];
        let mut words = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!(TimeSpec);
        let look = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let seen = recvmsg::<()>(self.socket.as_raw_fd(), &mut words, Some(&mut space), look);
        let seen = seen.ok()?;
        seen.cmsgs().ok()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(came) => Some(came),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Turns, Turns, UdpSocket) {
        let first = Turns::bind("127.77.9.3:0".parse().unwrap()).unwrap();
        let second = Turns::join(first.socket().try_clone().unwrap()).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(first.socket().local_addr().unwrap()).unwrap();
        (first, second, client)
    }

    #[tokio::test]
    async fn who_joins_reads_when_a_datagram_lies_unread_and_the_other_knows_at_once() {
        let (first, second, client) = two();
        assert!(first.is_own() && !second.is_own());
        client.send(b"a").unwrap();
        second.come().await;
        assert!(second.is_own() && !first.is_own());
        assert_eq!(second.socket().recv(&mut [0; 8]).unwrap(), 1, "it is there to be read");
        // And back.
        client.send(b"b").unwrap();
        first.come().await;
        assert!(first.is_own() && !second.is_own());
    }

    #[test]
    fn datagrams_of_the_same_words_are_told_from_each_other() {
        let (first, second, client) = two();
        assert_eq!(second.oldest(), None);
        for word in [b"a", b"a"] {
            client.send(word).unwrap();
        }
        let before = second.oldest();
        assert!(before.is_some());
        assert_eq!(second.oldest(), before, "looking takes nothing away");
        first.socket().recv(&mut [0; 8]).unwrap();
        assert!(second.oldest().is_some_and(|next| Some(next) != before));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_takes_the_turn_of_one_who_reads() {
        let (first, second, client) = two();
        let reads = async {
            for _ in 0..100 {
                client.send(b"a").unwrap();
                tokio::time::sleep(LOOK / 3).await;
                first.socket().recv(&mut [0; 8]).unwrap();
            }
        };
        tokio::select! {
            () = reads => {}
            () = second.come() => panic!("each datagram was read"),
        }
        assert!(first.is_own());
    }
}
