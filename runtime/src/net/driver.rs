//! The task that owns the connection to one peer: dials, accepts, listens for silence, gives up.
//!
//! ```text
//!            demand or arrival              connected
//!   [idle] ───────────────────> [seeking] ─────────────> [linked]
//!     ^                            │  ^                     │
//!     │    silent for lost_after   │  └──── broken ─────────┤
//!     └────────────────────────────┴──── goodbye, silent ───┘
//! ```
//!
//! `Lost` is said once per life of the peer that was `Up`. An ask that waits fails when a dial fails, when the peer is
//! lost, or when a new life of it appears. After a minute idle the peer is forgotten.

use super::{
    detector::{Change, Detector},
    dispatch,
    event::PeerEvent,
    frame::{Frame, Greeting, Hello},
    handshake::{Arrival, DialError, Judgement, Standing, code, judge},
    link::{self, Ended, Link},
    network::Network,
    peer::{LinkState, Peer},
    takeover::{self, Answered},
    urgent::Urgent,
};
use crate::{message::Lane, pki::PeerRole};
use futures_util::{FutureExt, future::BoxFuture};
use impresario_ambient::{clock, random};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Interval, MissedTickBehavior, interval, sleep, timeout},
};

/// After how long without a connection or a wish for one a peer is forgotten.
const FORGET_AFTER: Duration = Duration::from_mins(1);

pub(crate) struct Driver {
    network: Arc<Network>,
    peer: Arc<Peer>,
    arrivals: mpsc::Receiver<Arrival>,
    stopping: watch::Receiver<bool>,
    detector: Detector,
    /// The newest life of the peer that we have met.
    incarnation: Option<u64>,
    /// Whether that life is up (or not yet lost).
    up: bool,
    generation: u64,
    attempts: u64,
    /// When to look at the silence (and, on a link, to say something).
    ticks: Interval,
}

/// What comes after a link.
enum Next {
    Seek,
    Use(Arc<Link>),
    Stop,
}

impl Driver {
    pub(crate) fn new(
        network: Arc<Network>,
        peer: Arc<Peer>,
        arrivals: mpsc::Receiver<Arrival>,
    ) -> Self {
        let timing = &network.timing;
        let detector = Detector::new(timing.suspect_after, timing.lost_after, clock::now());
        let stopping = network.stopping();
        let mut ticks = interval(timing.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            network,
            peer,
            arrivals,
            stopping,
            detector,
            incarnation: None,
            up: false,
            generation: 0,
            attempts: 0,
            ticks,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut next = Next::Seek;
        loop {
            next = match next {
                Next::Use(link) => self.use_link(link).await,
                Next::Seek if self.is_sought() => self.seek().await,
                Next::Seek => match self.idle().await {
                    Some(next) => next,
                    None => return,
                },
                Next::Stop => break,
            };
        }
        self.peer.close();
    }

    /// Whether a connection is worth dialling for.
    fn is_sought(&self) -> bool {
        self.up || self.peer.is_wanted() || self.peer.has_watches() || self.peer.has_frames()
    }

    // --- idle

    /// Waits for demand or an arrival; `None` when the peer is forgotten.
    async fn idle(&mut self) -> Option<Next> {
        let peer = self.peer.clone();
        tokio::select! {
            () = stopped(&mut self.stopping) => Some(Next::Stop),
            Some(arrival) = self.arrivals.recv() => Some(self.admit(arrival, None).await.map_or(Next::Seek, Next::Use)),
            () = peer.demand.notified() => {
                // Silence counts from the wish on.
                self.detector.reset(clock::now());
                Some(Next::Seek)
            }
            () = sleep(FORGET_AFTER) => {
                if self.network.forget(&self.peer) {
                    return None;
                }
                Some(Next::Seek)
            }
        }
    }

    // --- seeking

    /// Dials and listens until there is a link, or nobody wants one any more.
    async fn seek(&mut self) -> Next {
        let mut attempt = 0;
        let (network, peer) = (self.network.clone(), self.peer.clone());
        let mut addresses = network.addresses.changes();
        loop {
            addresses.mark_unchanged();
            let dialled = network.address_of(&peer);
            let next = self.dial_or_arrive().await;
            let error = match next {
                Ok(next) => return next,
                Err(error) => error,
            };
            let busy = matches!(error, DialError::Busy);
            if !busy {
                tracing::debug!(peer = %self.peer.name, %error, attempt, "no connection");
                self.attempts += 1;
                self.peer.dialled(matches!(error, DialError::TurnedAway));
                self.peer.satisfied();
                self.give_up(&error.to_string());
                self.peer.link.send_replace(LinkState::Failed(self.attempts, error.to_string()));
            }
            if !self.is_sought() {
                return Next::Seek;
            }
            let wait = self.network.timing.redial.wait(attempt, random::random());
            attempt += 1;
            let pause = sleep(wait);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = stopped(&mut self.stopping) => return Next::Stop,
                    Some(arrival) = self.arrivals.recv() => {
                        if let Some(link) = self.admit(arrival, None).await {
                            return Next::Use(link);
                        }
                    }
                    _ = self.ticks.tick() => {
                        if self.judge_silence() {
                            return Next::Seek;
                        }
                    }
                    Ok(()) = addresses.changed() => {
                        // Somebody else's address is no reason to dial sooner.
                        if network.address_of(&peer) != dialled {
                            break;
                        }
                    }
                    () = &mut pause => break,
                }
            }
        }
    }

    /// One dial, while arrivals are heard: the dial of the smaller name goes first.
    async fn dial_or_arrive(&mut self) -> Result<Next, DialError> {
        let hello = Hello { incarnation: self.network.incarnation, generation: self.generation };
        let (network, peer) = (self.network.clone(), self.peer.clone());
        let dial = timeout(network.timing.dial, network.dial(&peer, &hello));
        tokio::pin!(dial);
        let mut held = None;
        let dialled = loop {
            tokio::select! {
                biased;
                () = stopped(&mut self.stopping) => return Ok(Next::Stop),
                dialled = &mut dial => break dialled.unwrap_or(Err(DialError::Timeout)),
                _ = self.ticks.tick() => {
                    if self.judge_silence() {
                        return Ok(Next::Seek);
                    }
                }
                Some(arrival) = self.arrivals.recv() => {
                    if network.name < peer.name {
                        if let Some(older) = held.replace(arrival) {
                            turn_away(&network, older, Greeting::Busy);
                        }
                    } else if let Some(link) = self.admit(arrival, None).await {
                        return Ok(Next::Use(link));
                    }
                }
            }
        };
        match dialled {
            Ok((link, generation)) => {
                if let Some(arrival) = held {
                    turn_away(&network, arrival, Greeting::Busy);
                }
                if self.up && self.incarnation.is_some_and(|known| link.incarnation < known) {
                    link.connection.close(code::REPLACED, b"superseded");
                    return Err(DialError::Superseded);
                }
                self.generation = self.generation.max(generation);
                Ok(Next::Use(Arc::new(link)))
            }
            Err(error) => match held {
                Some(arrival) => Ok(self.admit(arrival, None).await.map_or(Next::Seek, Next::Use)),
                None => Err(error),
            },
        }
    }

    /// Judges a connection that arrived and answers it.
    async fn admit(&mut self, arrival: Arrival, current: Option<&Link>) -> Option<Arc<Link>> {
        self.judge(arrival, current)?.await
    }

    /// Judges a connection that arrived; gives the answer that is to be brought to it.
    fn judge(
        &mut self,
        mut arrival: Arrival,
        current: Option<&Link>,
    ) -> Option<impl Future<Output = Option<Arc<Link>>> + Send + use<>> {
        let standing = Standing {
            // A life that is lost supersedes nobody: its successor's clock may be behind.
            incarnation: self.incarnation.filter(|_| self.up),
            generation: self.generation,
            dialled_link: current.is_some_and(|link| link.dialled),
        };
        let generation = match judge(standing, &arrival.hello) {
            Judgement::Accept(generation) => generation,
            Judgement::Busy => {
                turn_away(&self.network, arrival, Greeting::Busy);
                return None;
            }
            Judgement::Superseded => {
                turn_away(&self.network, arrival, Greeting::Superseded);
                return None;
            }
        };
        self.generation = generation;
        // The socket that a node dials from is the one it listens on. A client is never dialled, and a guest only as long
        // as it is known here.
        let (name, from) = (&self.peer.name, arrival.connection.remote_address());
        match arrival.identity.role {
            PeerRole::Control | PeerRole::Node => self.network.addresses.set(name.clone(), from),
            PeerRole::Guest { .. } => self.peer.came_from(from),
            PeerRole::Client | PeerRole::Admin => {}
        }
        let (network, peer) = (self.network.clone(), self.peer.clone());
        Some(async move {
            let welcome = Greeting::Welcome { incarnation: network.incarnation, generation };
            match timeout(network.timing.dial, arrival.answer(&welcome)).await {
                Ok(true) => Some(Arc::new(Link {
                    connection: arrival.connection.take(),
                    terms: peer.terms(&network.pools, &arrival.identity),
                    identity: arrival.identity,
                    until: arrival.until,
                    incarnation: arrival.hello.incarnation,
                    generation,
                    dialled: false,
                    urgent: Urgent::default(),
                })),
                _ => None,
            }
        })
    }

    // --- linked

    async fn use_link(&mut self, link: Arc<Link>) -> Next {
        self.adopt(&link);
        let tasks = link::start(&self.network, &self.peer, &link);
        let next = self.keep(&link).await;
        // Who waits for a link keeps waiting: the next attempt tells them.
        self.peer.link.send_if_modified(|state| {
            *state = LinkState::Down;
            false
        });
        if let Next::Use(_) = next {
            link.connection.close(code::REPLACED, b"replaced");
        }
        tasks.shutdown().await;
        next
    }

    /// Makes the link the one in use.
    fn adopt(&mut self, link: &Arc<Link>) {
        if self.incarnation != Some(link.incarnation) {
            // After a loss, as at the first meeting, nobody is replaced: what waits is meant for this life.
            if self.up {
                self.lose("a new process took its place");
            }
            self.peer.forget_sequences();
            self.incarnation = Some(link.incarnation);
        }
        let was_up = std::mem::replace(&mut self.up, true);
        self.peer.healer.store(link.identity.role.is_shared(), Ordering::Relaxed);
        self.network.set_windows(link);
        let lane_bytes = self.network.lane_bytes(&link.identity.role);
        self.peer.set_lane_bounds(lane_bytes, &link.terms.account);
        self.peer.full.forget();
        self.peer.dialled(false);
        self.peer.hear();
        self.detector.reset(clock::now());
        self.peer.satisfied();
        self.peer.link.send_replace(LinkState::Up(link.clone()));
        self.peer.watches.connected();
        self.say_again();
        tracing::debug!(peer = %self.peer.name, generation = link.generation, dialled = link.dialled, "connected");
        if !was_up {
            self.tell_up(link);
        }
    }

    fn tell_up(&self, link: &Link) {
        self.network.tell(PeerEvent::Up {
            node: self.peer.name.clone(),
            incarnation: link.incarnation,
            identity: link.identity.clone(),
        });
    }

    /// Says again what the peer has not confirmed, and what became of its tells.
    fn say_again(&self) {
        let (network, peer) = (&self.network, &self.peer);
        let mut room = true;
        for frame in peer.watches.again().into_iter().chain(peer.watchers.again()) {
            room = room && dispatch::say(network, peer, &frame);
            if let (false, Frame::Unwatch { id }) = (room, &frame) {
                peer.watches.not_said(*id);
            }
        }
        peer.lost.report(|frame| dispatch::say(network, peer, frame));
    }

    /// Sends heartbeats and listens until the link is over.
    async fn keep(&mut self, link: &Arc<Link>) -> Next {
        // The answer to one who dialled meanwhile: it may be slow to take it, and nothing else waits for that.
        let mut answering: Option<BoxFuture<'static, Answered>> = None;
        loop {
            let idle = answering.is_none();
            let answered = async {
                match &mut answering {
                    Some(answer) => answer.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stopped(&mut self.stopping) => {
                    link.connection.close(code::GOODBYE, b"stopping");
                    return Next::Stop;
                }
                error = link.connection.closed() => match Ended::from(error) {
                    Ended::Goodbye => {
                        self.lose("it has stopped");
                        return Next::Seek;
                    }
                    Ended::Broken(detail) => {
                        tracing::debug!(peer = %self.peer.name, detail, "connection broken");
                        return Next::Seek;
                    }
                },
                _ = self.ticks.tick() => {
                    if let Some(why) = self.network.is_out(&link.identity, link.until) {
                        tracing::info!(peer = %self.peer.name, why, "link closed");
                        link.connection.close(code::STRANGER, why.as_bytes());
                        return Next::Seek;
                    }
                    self.peer.full.prune(clock::now());
                    // A control lane that is full is in no need of a heartbeat.
                    if let Err(error) = self.peer.send(&self.network.faults, Lane::Control, &Frame::Heartbeat) {
                        tracing::debug!(peer = %self.peer.name, %error, "no heartbeat sent");
                    }
                    self.say_again();
                    match self.detector.look(self.peer.heard(), clock::now()) {
                        Some(Change::Lost) => {
                            link.connection.close(code::SILENT, b"silent for too long");
                            self.lose("it was silent for too long");
                            return Next::Seek;
                        }
                        Some(Change::Suspect) => self.network.tell(PeerEvent::Suspect { node: self.peer.name.clone() }),
                        Some(Change::HeardAgain) => self.tell_up(link),
                        None => {}
                    }
                }
                answered = answered => {
                    answering = None;
                    match answered {
                        Answered::Linked(Some(newer)) => return Next::Use(newer),
                        Answered::Linked(None) => {}
                        Answered::Alone(arrival) => answering = self.answer(arrival, link),
                        Answered::Second(arrival) => {
                            let (peer, from) = (&self.peer.name, arrival.connection.remote_address());
                            tracing::warn!(%peer, %from, "a second process of a node's name is turned away: stop one of them");
                            turn_away(&self.network, arrival, Greeting::Superseded);
                        }
                    }
                }
                Some(arrival) = self.arrivals.recv(), if idle => {
                    answering = if takeover::is_doubtful(&arrival, link) {
                        let (network, peer, link) = (self.network.clone(), self.peer.clone(), link.clone());
                        let listens = async move {
                            // A lane without room is on its way to be confirmed, too.
                            let speak = || drop(peer.send(&network.faults, Lane::Control, &Frame::Heartbeat));
                            takeover::listen(arrival, link, &network.timing, speak).await
                        };
                        Some(listens.boxed())
                    } else {
                        self.answer(arrival, link)
                    };
                }
            }
        }
    }

    /// Judges one who dialled while a link stands.
    fn answer(&mut self, arrival: Arrival, link: &Link) -> Option<BoxFuture<'static, Answered>> {
        Some(self.judge(arrival, Some(link))?.map(Answered::Linked).boxed())
    }

    // --- loss

    /// Whether the peer was silent for so long, while being sought, that it is lost.
    fn judge_silence(&mut self) -> bool {
        match self.detector.look(self.peer.heard(), clock::now()) {
            Some(Change::Lost) => {
                self.lose("it could not be reached for too long");
                true
            }
            Some(Change::Suspect) if self.up => {
                self.network.tell(PeerEvent::Suspect { node: self.peer.name.clone() });
                false
            }
            _ => false,
        }
    }

    /// Nobody takes what waits; the tells among it are reported.
    fn give_up(&self, detail: &str) {
        let dropped = self.peer.give_up(detail);
        self.network.tells_unreached(&self.peer, dropped, detail);
    }

    /// The life of the peer that we knew is over, as far as we can know.
    fn lose(&mut self, detail: &str) {
        let was_up = std::mem::replace(&mut self.up, false);
        self.attempts += 1;
        self.peer.link.send_replace(LinkState::Failed(self.attempts, detail.to_owned()));
        self.give_up(detail);
        self.peer.watches.all_lost();
        self.peer.watchers.forget();
        self.peer.full.forget();
        self.peer.satisfied();
        if let (true, Some(incarnation)) = (was_up, self.incarnation) {
            tracing::info!(peer = %self.peer.name, detail, "peer lost");
            self.network.tell(PeerEvent::Lost { node: self.peer.name.clone(), incarnation });
        }
    }
}

/// Waits until the node stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The sender is gone only with the node itself.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Turns a connection away without making the driver wait.
fn turn_away(network: &Network, arrival: Arrival, greeting: Greeting) {
    // One that does not hear the answer in time is closed without it.
    let answer = timeout(network.timing.dial, arrival.turn_away(greeting));
    network.tasks.spawn(async move { drop(answer.await) });
}
