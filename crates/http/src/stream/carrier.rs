//! The threads that own the sockets of all followers. One write a client and frame: no task, no timer, no copy.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once, mpsc};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use super::MAX_LAG;
use super::feed::{Delta, Feed};
use super::follower::{Follower, Gone};
use crate::edge::DocumentKey;
use crate::server::Slot;

/// A connection is pinged after so many [`BEAT`]s, so that dead ones are noticed.
const PING_EVERY: usize = 20;
const BEAT: Duration = Duration::from_secs(1);
/// Names the inbox among the sockets.
const INBOX: Token = Token(usize::MAX);
/// Events taken at a time.
const EVENTS: usize = 1_024;
/// Bytes read at a time: clients send nothing but answers to pings.
const SCRATCH: usize = 4_096;

/// All threads; dropping it ends them.
pub(super) struct Carriers {
    handles: Vec<Handle>,
    next: AtomicUsize,
    watched: Once,
}

struct Handle {
    inbox: mpsc::Sender<Order>,
    waker: Waker,
}

enum Order {
    Join(Arc<Feed>, Box<Follower>),
    Deliver(DocumentKey, Delta),
    Stop,
}

impl Carriers {
    /// Starts a thread for each core.
    pub(super) fn start() -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let handles = (0..threads).map(|_| Carrier::start()).collect::<io::Result<_>>()?;
        Ok(Carriers { handles, next: AtomicUsize::new(0), watched: Once::new() })
    }

    /// Lets a client follow a feed.
    pub(super) fn take(&self, feed: Arc<Feed>, follower: Follower) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.handles.len();
        self.handles[next].order(Order::Join(feed, Box::new(follower)));
    }

    /// Sends a delta to all who follow this document.
    pub(super) fn deliver(&self, key: DocumentKey, delta: &Delta) {
        self.handles.iter().for_each(|handle| handle.order(Order::Deliver(key, delta.clone())));
    }

    /// Stops with the server, which is waited for once.
    pub(super) fn end_with(self: &Arc<Self>, slot: &Slot) {
        self.watched.call_once(|| {
            let (carriers, stopped) = (Arc::downgrade(self), slot.stopped());
            tokio::spawn(async move {
                stopped.await;
                if let Some(carriers) = carriers.upgrade() {
                    carriers.stop();
                }
            });
        });
    }

    /// Ends all connections.
    fn stop(&self) {
        self.handles.iter().for_each(|handle| handle.order(Order::Stop));
    }
}

impl Drop for Carriers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Handle {
    fn order(&self, order: Order) {
        // A thread that has stopped takes no more orders, and a socket in one is closed with it.
        if self.inbox.send(order).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

/// Those who follow a document in one thread.
struct Group {
    feed: Arc<Feed>,
    /// The last deltas, each of which begins where the one before ends.
    deltas: VecDeque<Delta>,
    /// Places of the followers.
    members: Vec<usize>,
}

struct Member {
    follower: Follower,
    key: DocumentKey,
    /// Its place among the members of its group.
    place: usize,
}

impl Group {
    /// Brings a client to the present, as far as its socket takes it.
    fn bring(&self, follower: &mut Follower) -> Result<(), Gone> {
        while follower.is_free() && self.deltas.back().is_some_and(|last| follower.at < last.to) {
            match self.deltas.binary_search_by_key(&follower.at, |delta| delta.from) {
                Ok(i) => follower.send(&self.deltas[i].encoded, self.deltas[i].to)?,
                Err(_) => {
                    let (frames, at) = self.feed.rejoin();
                    follower.send_all(frames, at)?;
                }
            }
        }
        Ok(())
    }
}

/// One thread's part of the followers.
struct Carrier {
    poll: Poll,
    inbox: mpsc::Receiver<Order>,
    groups: HashMap<DocumentKey, Group>,
    followers: Slab<Member>,
    scratch: Vec<u8>,
    beat: usize,
}

impl Carrier {
    fn start() -> io::Result<Handle> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), INBOX)?;
        let (sender, inbox) = mpsc::channel();
        let carrier = Carrier {
            poll,
            inbox,
            groups: HashMap::new(),
            followers: Slab::new(),
            scratch: vec![0; SCRATCH],
            beat: 0,
        };
        std::thread::Builder::new().name("stream".to_owned()).spawn(move || carrier.run())?;
        Ok(Handle { inbox: sender, waker })
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut next_beat = Instant::now() + BEAT;
        loop {
            let idle = self.followers.is_empty();
            let wait = (!idle).then(|| next_beat.saturating_duration_since(Instant::now()));
            if let Err(error) = self.poll.poll(&mut events, wait)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "streams cannot be served any more");
                return;
            }
            for event in events.iter().filter(|event| event.token() != INBOX) {
                self.attend(event.token().0);
            }
            while let Ok(order) = self.inbox.try_recv() {
                match order {
                    Order::Join(feed, follower) => self.join(feed, *follower),
                    Order::Deliver(key, delta) => self.deliver(key, delta),
                    Order::Stop => {
                        return self.followers.iter_mut().for_each(|(_, member)| member.follower.farewell());
                    }
                }
            }
            if Instant::now() >= next_beat {
                next_beat = Instant::now() + BEAT;
                self.beat();
            }
        }
    }

    fn join(&mut self, feed: Arc<Feed>, mut follower: Follower) {
        let key = feed.key;
        let entry = self.followers.vacant_entry();
        let (token, interests) = (Token(entry.key()), Interest::READABLE | Interest::WRITABLE);
        if self.poll.registry().register(&mut follower.socket, token, interests).is_err() {
            return;
        }
        let group = Group { feed, deltas: VecDeque::new(), members: Vec::new() };
        let members = &mut self.groups.entry(key).or_insert(group).members;
        entry.insert(Member { follower, key, place: members.len() });
        members.push(token.0);
        self.settle(token.0, Follower::flush);
    }

    /// Answers what has happened on a client's socket.
    fn attend(&mut self, i: usize) {
        let registry = self.poll.registry();
        // It may have gone since the event.
        let Some(Member { follower, .. }) = self.followers.get_mut(i) else { return };
        let heard = follower.hear(&mut self.scratch).and_then(|all| {
            if !all {
                // Events are told once only: asking for them anew tells of what was left.
                let interests = Interest::READABLE | Interest::WRITABLE;
                registry.reregister(&mut follower.socket, Token(i), interests)?;
            }
            Ok(())
        });
        self.settle(i, |follower| heard.and_then(|()| follower.flush()));
    }

    fn deliver(&mut self, key: DocumentKey, delta: Delta) {
        let Some(group) = self.groups.get_mut(&key) else { return };
        if group.deltas.back().is_some_and(|last| last.to != delta.from) {
            group.deltas.clear();
        }
        if group.deltas.len() == MAX_LAG {
            group.deltas.pop_front();
        }
        group.deltas.push_back(delta);
        let mut gone = Vec::new();
        for i in &group.members {
            if let Some(Member { follower, .. }) = self.followers.get_mut(*i)
                && group.bring(follower).is_err()
            {
                gone.push(*i);
            }
        }
        gone.into_iter().for_each(|i| self.remove(i));
    }

    /// Pings a part of the clients, so that each has its turn in time.
    fn beat(&mut self) {
        self.beat = (self.beat + 1) % PING_EVERY;
        let due: Vec<usize> =
            self.followers.iter().map(|(i, _)| i).filter(|i| i % PING_EVERY == self.beat).collect();
        due.into_iter().for_each(|i| self.settle(i, Follower::ping));
    }

    /// Does something with a client, then brings it to the present, or lets it go.
    fn settle(&mut self, i: usize, act: impl FnOnce(&mut Follower) -> Result<(), Gone>) {
        let Some(Member { follower, key, .. }) = self.followers.get_mut(i) else { return };
        let Some(group) = self.groups.get(key) else { return };
        if act(follower).and_then(|()| group.bring(follower)).is_err() {
            self.remove(i);
        }
    }

    fn remove(&mut self, i: usize) {
        let Some(Member { key, place, .. }) = self.followers.try_remove(i) else { return };
        let Some(group) = self.groups.get_mut(&key) else { return };
        group.members.swap_remove(place);
        match group.members.get(place) {
            // Another took its place.
            Some(moved) => self.followers[*moved].place = place,
            None if group.members.is_empty() => drop(self.groups.remove(&key)),
            None => {}
        }
    }
}
