//! Lanes: threads that take votes and reads of results straight from their sockets.
//!
//! A vote's own work takes less time than one change of threads, so here many votes share each step: a lane looks
//! at all its sockets that have something, reads every vote there is, hands them over as one submission a
//! partition, and writes all answers of a socket at once. A connection begins in a lane and stays for as long as it
//! sends votes or reads results; with its first other request it goes, with the bytes read so far, to the general
//! server.

mod answer;
mod connection;
mod load;
mod request;
mod shelf;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use bytes::Bytes;
use canvass_election::event::Vote;
use canvass_election::ids::PartitionId;
use canvass_election::tally::Outcome;
use canvass_engine::{Answer, Judged, Until, Verdict};
use canvass_protocol::api;
use canvass_protocol::problem::{Code, Problem};
use canvass_protocol::record::Drafts;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use tokio::runtime::Handle;

use crate::App;
use crate::auth;
use crate::body::{self, MediaType};
use crate::edge::Version;
use crate::metrics::Counts;
use crate::reply::refuse;
use crate::server::{HEAD_PATIENCE, STOP_PATIENCE, Slot};
use crate::vote::{
    Moment, Prepared, Receipts, Recorded, is_collector, prepare_request, refusal_of, settle, unrecorded,
};

use answer::{Pen, Ready, refused};
use connection::Connection;
use load::Load;
use request::{Parsed, ReadRequest, VOTE_PATH, VoteRequest};
use shelf::{Asker, Sheet, Shelf, prepare as prepare_read};

/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 << 10;
/// Most sockets looked at in one round.
const EVENTS: usize = 4_096;
/// So many votes are handed over before the next are read: larger batches gain nothing.
const SUBMISSION: usize = 2_048;
/// How often connections are looked at that do not move.
const SWEEP: Duration = Duration::from_secs(1);
/// The event of the lane's own waker.
const WAKE: Token = Token(usize::MAX);

/// Takes a connection, with the bytes read from it, that is none for a lane.
pub(crate) type HandOver = Arc<dyn Fn(std::net::TcpStream, SocketAddr, Slot, Bytes) + Send + Sync>;

/// All lanes of a server. New connections go to them in turn.
pub(crate) struct Lanes {
    posts: Vec<Arc<Post>>,
    next: AtomicUsize,
}

impl Lanes {
    /// Starts `count` lanes. What they wait for runs on the present runtime.
    pub(crate) fn start(
        app: &Arc<App>,
        count: usize,
        router: &Router,
        hand_over: &HandOver,
    ) -> io::Result<Self> {
        let lanes = (0..count.max(1)).map(|n| {
            let lane = Lane::new(Arc::clone(app), router.clone(), Arc::clone(hand_over))?;
            let post = Arc::clone(&lane.post);
            thread::Builder::new().name(format!("lane-{n}")).spawn(move || lane.run())?;
            Ok(post)
        });
        Ok(Lanes { posts: lanes.collect::<io::Result<_>>()?, next: AtomicUsize::new(0) })
    }

    /// Gives a connection to a lane. The socket must not block.
    pub(crate) fn take(&self, socket: std::net::TcpStream, peer: SocketAddr, slot: Slot) {
        let n = self.next.fetch_add(1, Ordering::Relaxed) % self.posts.len();
        self.posts[n].send(Message::Connection(socket, peer, slot));
    }

    /// Lets the lanes answer what they have read, and end.
    pub(crate) fn stop(&self) {
        self.posts.iter().for_each(|post| post.send(Message::Stop));
    }
}

/// What a lane is told by others.
enum Message {
    Connection(std::net::TcpStream, SocketAddr, Slot),
    /// The fold's verdicts on the submission of this number, which was made at that time.
    Answered(u64, Instant, Vec<Ticket>, Answer),
    /// What became of one vote after a second look.
    Settled(Place, Result<Recorded, Problem>),
    /// What there is to read at an address, as new as a publication at least.
    Prepared(Box<str>, Version, Option<Arc<Sheet>>),
    Stop,
}

/// The way to tell a lane something.
struct Post {
    messages: mpsc::Sender<Message>,
    waker: Waker,
    /// The lane will look at its messages before it sleeps.
    awake: AtomicBool,
}

impl Post {
    fn send(&self, message: Message) {
        // A lane that has ended has nobody to tell.
        if self.messages.send(message).is_ok() && !self.awake.swap(true, Ordering::AcqRel) {
            let _ = self.waker.wake();
        }
    }
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy)]
struct Place {
    key: usize,
    connection: u64,
    number: u64,
}

/// A vote that waits for its verdict.
struct Ticket {
    place: Place,
    vote: Vote,
    /// Whether its receipt is to hold no promise.
    minimal: bool,
}

/// The votes of a round for one partition.
#[derive(Default)]
struct Bundle {
    drafts: Drafts,
    tickets: Vec<Ticket>,
}

struct Lane {
    app: Arc<App>,
    /// Makes what there is to read.
    router: Router,
    hand_over: HandOver,
    runtime: Handle,
    post: Arc<Post>,
    messages: mpsc::Receiver<Message>,
    poll: Poll,
    connections: Slab<Connection>,
    next_id: u64,
    bundles: Vec<Bundle>,
    /// Votes in the bundles.
    bundled: usize,
    load: Load,
    /// Connections to look at before the lane sleeps.
    dirty: Vec<usize>,
    scratch: Box<[u8]>,
    pen: Pen,
    shelf: Shelf,
    moment: Moment,
    counts: Arc<Counts>,
    now: Instant,
    stop_by: Option<Instant>,
}

impl Lane {
    fn new(app: Arc<App>, router: Router, hand_over: HandOver) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let (sender, messages) = mpsc::channel();
        let post = Arc::new(Post { messages: sender, waker, awake: AtomicBool::new(false) });
        let partitions = app.definition().partitions.votes;
        let (moment, counts, now) = (Moment::new(&app), app.metrics.lane(), Instant::now());
        let shelf = Shelf::new(app.edge.version());
        Ok(Lane {
            app,
            router,
            hand_over,
            runtime: Handle::current(),
            post,
            messages,
            poll,
            connections: Slab::new(),
            next_id: 0,
            bundles: (0..partitions).map(|_| Bundle::default()).collect(),
            bundled: 0,
            load: Load::new(now),
            dirty: Vec::new(),
            scratch: vec![0; READ_BYTES].into(),
            pen: Pen::new(),
            shelf,
            moment,
            counts,
            now,
            stop_by: None,
        })
    }

    /// Works until told to stop and nothing is owed to anybody.
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut swept = self.now;
        while self.stop_by.is_none_or(|by| self.now < by && !self.connections.is_empty()) {
            // Whoever sends from here on wakes the lane; what was sent before is looked at now.
            self.post.awake.store(false, Ordering::Release);
            let patience = if self.take_messages() { Duration::ZERO } else { SWEEP };
            if let Err(error) = self.poll.poll(&mut events, Some(patience)) {
                if error.kind() != io::ErrorKind::Interrupted {
                    tracing::error!(%error, "a lane cannot wait for its sockets");
                    thread::sleep(SWEEP);
                }
                continue;
            }
            self.post.awake.store(true, Ordering::Release);
            self.now = Instant::now();
            self.load.begin(self.now);
            self.moment = Moment::new(&self.app);
            self.shelf.renew(self.app.edge.version());
            for event in &events {
                if event.token() == WAKE {
                    continue;
                }
                let key = event.token().0;
                if event.is_readable() {
                    self.read(key, event.is_read_closed());
                }
                if event.is_writable() || event.is_error() {
                    self.touch(key);
                }
                if self.bundled >= SUBMISSION {
                    self.turn();
                }
            }
            self.turn();
            if self.now - swept >= SWEEP {
                swept = self.now;
                self.sweep();
            }
        }
    }

    /// Hands over what was read, and writes what is answered.
    fn turn(&mut self) {
        self.submit();
        self.take_messages();
        self.tidy();
    }

    /// Handles what others have to say; tells whether there was anything.
    fn take_messages(&mut self) -> bool {
        let mut any = false;
        while let Ok(message) = self.messages.try_recv() {
            any = true;
            match message {
                Message::Connection(socket, peer, slot) => self.begin(socket, peer, slot),
                Message::Answered(number, since, tickets, answer) => {
                    self.counts.waited(since.elapsed(), tickets.len());
                    self.load.answered(number, tickets.len());
                    self.answered(tickets, answer);
                }
                Message::Settled(place, result) => self.settled(place, result),
                Message::Prepared(target, version, sheet) => self.prepared(&target, version, sheet),
                Message::Stop => {
                    self.stop_by = Some(self.now + STOP_PATIENCE);
                    let all: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
                    all.into_iter().for_each(|key| self.touch(key));
                }
            }
        }
        any
    }

    fn begin(&mut self, socket: std::net::TcpStream, peer: SocketAddr, slot: Slot) {
        let entry = self.connections.vacant_entry();
        let mut socket = mio::net::TcpStream::from_std(socket);
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self.poll.registry().register(&mut socket, Token(entry.key()), interest) {
            Ok(()) => {
                self.next_id += 1;
                entry.insert(Connection::new(self.next_id, socket, peer, slot, self.now));
            }
            Err(error) => tracing::warn!(%error, "a connection could not be taken"),
        }
    }

    /// Has a connection looked at before the lane sleeps.
    fn touch(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !std::mem::replace(&mut connection.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Reads what a socket has. `to_the_end`: its end is near, and no other event will tell of it.
    fn read(&mut self, key: usize, to_the_end: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(connection) = self.connections.get_mut(key) {
            connection.unread = !connection.takes_more();
            if connection.unread {
                break;
            }
            self.now = Instant::now();
            match connection.read(&mut scratch) {
                Ok(Some(0)) => {
                    connection.ended = true;
                    self.touch(key);
                    break;
                }
                Ok(Some(n)) => {
                    self.take_bytes(key, &scratch[..n]);
                    // A buffer that was not filled has emptied the socket.
                    if n < scratch.len() && !to_the_end {
                        break;
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    self.drop_connection(key);
                    break;
                }
            }
        }
        self.scratch = scratch;
    }

    fn take_bytes(&mut self, key: usize, bytes: &[u8]) {
        let input = std::mem::take(&mut self.connections[key].input);
        if input.is_empty() {
            let used = self.take_requests(key, bytes);
            self.connections[key].input.extend_from_slice(&bytes[used..]);
        } else {
            let whole = [&input, bytes].concat();
            let used = self.take_requests(key, &whole);
            self.connections[key].input = whole[used..].to_vec();
        }
    }

    /// Takes the requests that the bytes begin with; returns how many bytes they were.
    fn take_requests(&mut self, key: usize, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() && self.connections[key].takes_more() {
            match request::parse(&bytes[used..]) {
                Parsed::Partial => break,
                Parsed::Vote(request) => {
                    used += request.size;
                    self.take_vote(key, &request);
                }
                Parsed::Read(request) => {
                    if !self.take_read(key, &request) {
                        break;
                    }
                    used += request.size;
                }
                Parsed::Other => {
                    self.connections[key].leaving = true;
                    self.touch(key);
                }
            }
        }
        let connection = &mut self.connections[key];
        connection.unread |= used < bytes.len() && !connection.takes_more();
        used
    }

    /// Answers a read; if what it asks for must be prepared first, its connection waits, and the request is left.
    fn take_read(&mut self, key: usize, request: &ReadRequest<'_>) -> bool {
        let connection = &mut self.connections[key];
        connection.moved = self.now;
        if let Some(sheet) = self.shelf.get(request.target) {
            let place = Place { key, connection: connection.id, number: connection.expect() };
            let ready = Ready::Prepared(Arc::clone(sheet), sheet.form(request));
            self.answer(place, ready);
            self.counts.read();
            return true;
        }
        connection.waiting = true;
        if self.shelf.ask(request.target, Asker { key, connection: connection.id }) {
            let (app, router, post) = (Arc::clone(&self.app), self.router.clone(), Arc::clone(&self.post));
            let target: Box<str> = request.target.into();
            self.runtime.spawn(async move {
                let (version, sheet) = prepare_read(&app, router, &target).await;
                post.send(Message::Prepared(target, version, sheet));
            });
        }
        false
    }

    /// Goes on with the connections that waited for something to read. What is not for everyone is none for a lane.
    fn prepared(&mut self, target: &str, version: Version, sheet: Option<Arc<Sheet>>) {
        let found = sheet.is_some();
        for Asker { key, connection } in self.shelf.put(target, sheet) {
            let waiting = self.connections.get_mut(key).filter(|c| c.id == connection);
            let Some(connection) = waiting else { continue };
            connection.waiting = false;
            connection.leaving = !found;
            self.touch(key);
            if found {
                self.take_bytes(key, &[]);
            }
        }
        self.shelf.withdraw(target, version);
    }

    fn take_vote(&mut self, key: usize, request: &VoteRequest<'_>) {
        let connection = &mut self.connections[key];
        connection.moved = self.now;
        let place = Place { key, connection: connection.id, number: connection.expect() };
        if self.load.is_full(self.now) {
            return self.turn_away(place, request.traceparent);
        }
        match prepare(&self.app, &self.moment, connection.peer, request) {
            Ok(Prepared { partition, request: id, vote }) => {
                let bundle = &mut self.bundles[usize::from(partition.index)];
                bundle.drafts.push_vote(id, &vote);
                bundle.tickets.push(Ticket { place, vote, minimal: body::prefers_minimal(request.prefer) });
                self.bundled += 1;
                self.load.take();
            }
            Err(problem) => self.refuse(place, problem, request.traceparent),
        }
    }

    fn turn_away(&mut self, place: Place, traceparent: Option<&[u8]>) {
        match traceparent {
            Some(_) => self.refuse(place, Code::Overloaded.into(), traceparent),
            None => {
                self.counts.votes.refused(Code::Overloaded);
                self.answer(place, Ready::Overloaded);
            }
        }
    }

    fn refuse(&mut self, place: Place, problem: Problem, traceparent: Option<&[u8]>) {
        self.counts.votes.refused(problem.code);
        let written = refused(&refuse(problem, VOTE_PATH, traceparent));
        self.answer(place, Ready::Written(written));
    }

    fn answer(&mut self, place: Place, ready: Ready) {
        // Its connection may be gone, and another one in its place.
        let connection = self.connections.get_mut(place.key).filter(|c| c.id == place.connection);
        if let Some(connection) = connection {
            connection.answer(place.number, ready, &mut self.pen);
            self.touch(place.key);
        }
    }

    /// Hands over the votes that were read.
    fn submit(&mut self) {
        self.bundled = 0;
        for (index, bundle) in (0u16..).zip(&mut self.bundles) {
            if bundle.tickets.is_empty() {
                continue;
            }
            let Bundle { drafts, tickets } = std::mem::take(bundle);
            let post = Arc::clone(&self.post);
            let number = self.load.submit(self.now);
            let since = self.now;
            let then = move |answer| post.send(Message::Answered(number, since, tickets, answer));
            let partition = PartitionId::votes(index);
            self.app.engine.ingest().submit_then(partition, drafts, Until::Recorded, then);
        }
    }

    fn answered(&mut self, tickets: Vec<Ticket>, answer: Answer) {
        match answer {
            Ok(Judged { verdicts, receipts }) => {
                for (ticket, verdict) in tickets.into_iter().zip(verdicts) {
                    self.judged(ticket, verdict, &receipts);
                }
            }
            Err(error) => {
                let problem = unrecorded(error);
                tickets.into_iter().for_each(|ticket| self.refuse(ticket.place, problem.clone(), None));
            }
        }
    }

    fn judged(&mut self, Ticket { place, vote, minimal }: Ticket, verdict: Verdict, receipts: &Receipts) {
        let Verdict { record, time, .. } = verdict;
        match verdict.outcome {
            None => {
                let known = false;
                self.counts.votes.recorded();
                self.answer(place, Ready::Counted { record, time, known, replayed: false, receipts: None });
            }
            Some(Outcome::Counted(_)) => {
                let receipts = receipts.clone().filter(|_| !minimal);
                self.counts.votes.counted(false);
                self.answer(place, Ready::Counted { record, time, known: true, replayed: false, receipts });
            }
            Some(Outcome::Rejected(reason)) => self.refuse(place, refusal_of(reason), None),
            // Needs the log, for which a lane cannot wait.
            Some(Outcome::Duplicate { .. } | Outcome::Held(_)) => {
                let (app, post) = (Arc::clone(&self.app), Arc::clone(&self.post));
                self.runtime.spawn(async move {
                    let mut settled = settle(&app, (&verdict, &None), &vote).await;
                    if let Ok(recorded) = &mut settled {
                        recorded.receipts.take_if(|_| minimal);
                    }
                    post.send(Message::Settled(place, settled));
                });
            }
        }
    }

    fn settled(&mut self, place: Place, result: Result<Recorded, Problem>) {
        match result {
            Ok(Recorded { record, time, known, replayed, receipts, .. }) => {
                self.counts.votes.counted(replayed);
                self.answer(place, Ready::Counted { record, time, known, replayed, receipts });
            }
            Err(problem) => self.refuse(place, problem, None),
        }
    }

    /// Looks at every connection that something happened to.
    fn tidy(&mut self) {
        while let Some(key) = self.dirty.pop() {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.dirty = false;
            if connection.flush(self.now, &mut self.pen).is_err() {
                self.drop_connection(key);
                continue;
            }
            let settled = connection.is_settled();
            if settled && connection.leaving {
                self.leave(key);
            } else if settled && (connection.ended || self.stop_by.is_some()) {
                self.drop_connection(key);
            } else if connection.unread && connection.takes_more() && !connection.ended {
                self.take_bytes(key, &[]);
                self.read(key, true);
            }
        }
        self.submit();
    }

    fn drop_connection(&mut self, key: usize) {
        if let Some(mut connection) = self.connections.try_remove(key) {
            // It ends with the socket anyway.
            let _ = self.poll.registry().deregister(&mut connection.socket);
        }
    }

    /// Hands a connection over to the general server.
    fn leave(&mut self, key: usize) {
        let Some(mut connection) = self.connections.try_remove(key) else { return };
        if let Err(error) = self.poll.registry().deregister(&mut connection.socket) {
            tracing::warn!(%error, "a connection could not leave its lane");
            return;
        }
        let Connection { socket, peer, slot, input, .. } = connection;
        (self.hand_over)(socket.into(), peer, slot, input.into());
    }

    /// Cuts off clients that neither send a whole request nor read their answers.
    fn sweep(&mut self) {
        self.pen.tick();
        let now = self.now;
        let stuck = |c: &Connection| c.is_idle() && now.saturating_duration_since(c.moved) > HEAD_PATIENCE;
        let stuck: Vec<usize> =
            self.connections.iter().filter(|(_, c)| stuck(c)).map(|(key, _)| key).collect();
        stuck.into_iter().for_each(|key| self.drop_connection(key));
    }
}

/// Makes the vote of a request ready.
fn prepare(
    app: &App,
    moment: &Moment,
    peer: SocketAddr,
    request: &VoteRequest<'_>,
) -> Result<Prepared, Problem> {
    let credential = request.authorization.map(auth::credential).transpose()?;
    let trusted = is_collector(app, credential, peer, 1)?;
    if request.content_type.is_some_and(|header| body::media_type_of(header) != Ok(MediaType::Json)) {
        return Err(Code::UnsupportedMediaType.into());
    }
    let header_key = request.idempotency_key.map(body::key_of).transpose()?;
    let vote: api::VoteRequest<'_> = api::read(request.body)?;
    prepare_request(app, moment, &vote, credential, header_key.or(vote.key.as_deref()), trusted)
}
