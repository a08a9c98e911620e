//! [`Exchange`]: all of a cell's talking, one state machine. Calls, messages and hand-overs share the lines.
//!
//! It is driven by [`Exchange::poll`], which does one thing at a time and says what the cell has to do about it, by what the cell wants
//! to say ([`Exchange::call`], [`Exchange::send`], [`Exchange::offer`], …), and by changes of the live set. It belongs behind the cell's
//! lock. What an [`Event`] demands is to be done before the lock is let go and before the next poll: the answer to the cell that asked
//! goes out with that poll.

use super::agree::LiveSet;
use super::calls::{Calls, Origin};
use super::event::{CellDown, Event, Refusal, Sent, Undelivered};
use super::line::{self, Fabric, Packet, Slot};
use super::live::{CellSet, Epoch, Incarnation, Live};
use super::message::{Entry, Message, Outbox, Want};
use super::mutant::{Mutant, seeded};
use super::registry::{Place, Registry, Target, Verdict};
use super::request::{Frozen, Marks, Reply, Request, Vcpu};
use super::rpc::{Client, Server};
use abi::CellId;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Most calls that wait for the line to one cell.
pub const MAX_CALLS: usize = 8;
/// A cell whose memory has not answered is written to again after this part of the patience: ways come back sooner than
/// cells die.
const MUTE_PART: u64 = 100;

/// What there is between this cell and another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Peer {
    client: Client,
    server: Server,
    /// What the outstanding call is for.
    origin: Origin,
    /// Calls that wait for the line.
    calls: Calls,
    /// Whether a call went out last: then a message is next.
    called: bool,
    /// Since when its memory has not answered: nothing is written there for a while.
    mute: Option<u64>,
    /// The offer that waits for the cell's answer.
    offer: Option<(Vcpu, u32, Marks)>,
}

/// All of a cell's talking.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exchange {
    live: Live,
    registry: Registry,
    outbox: Outbox,
    peers: Vec<Peer>,
    /// Cells to which a call is outstanding.
    busy: CellSet,
    /// Cells for which calls wait.
    queued: CellSet,
    /// Cells to which a line may have to be written.
    unwritten: CellSet,
    /// Cells whose memory did not answer.
    mute: CellSet,
    /// What is yet to be told.
    events: VecDeque<Event>,
    /// How long a cell may be silent before it is suspected, in the caller's unit of time.
    patience: u64,
}

impl Exchange {
    /// The talking of the cell that `live` calls "me", in a machine of so many cells and VCPUs. `room` messages may
    /// wait at a time; a cell that has not answered for `patience`, in units of [`Self::poll`]'s `now`, is suspected.
    /// All memory is allocated here.
    #[must_use]
    pub fn new(live: Live, cells: usize, vcpus: usize, room: usize, patience: u64) -> Self {
        let mut peers: Vec<Peer> = Vec::new();
        peers.resize_with(cells, Peer::default);
        for peer in &mut peers {
            // What was given away goes before everything else, even into a full queue.
            peer.calls.reserve(MAX_CALLS + 1);
        }
        Self {
            live,
            registry: Registry::new(vcpus),
            outbox: Outbox::new(room),
            peers,
            busy: CellSet::NONE,
            queued: CellSet::NONE,
            unwritten: CellSet::NONE,
            mute: CellSet::NONE,
            events: VecDeque::with_capacity(2 * vcpus + MAX_CALLS + 1),
            patience,
        }
    }

    /// The live set.
    #[must_use]
    pub const fn live(&self) -> &Live {
        &self.live
    }

    /// This cell's part of the registry.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Whether nothing is outstanding or waiting: no call, no message, no event.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.busy.is_empty()
            && self.queued.is_empty()
            && self.outbox.len() == 0
            && self.events.is_empty()
    }

    /// A VCPU's life begins, in that cell ([`Registry::begin`]).
    pub fn begin(&mut self, vcpu: Vcpu, cell: CellId) {
        self.registry.begin(vcpu, cell, self.live.me());
    }

    /// The life of this cell's VCPU ends.
    ///
    /// # Errors
    /// It is not this cell's, or on its way: then it can only be sent a message.
    pub fn end(&mut self, vcpu: Vcpu) -> Result<(), Refusal> {
        if self.registry.end(vcpu) { Ok(()) } else { Err(Refusal::NotHere) }
    }

    /// Asks another cell something; [`Event::Returned`] with this token tells the answer.
    ///
    /// # Errors
    /// The cell is not live, or [`MAX_CALLS`] wait already.
    pub fn call(&mut self, to: CellId, request: &Request, token: u32) -> Result<(), Refusal> {
        self.enqueue(to, Origin::Cell(token), request)
    }

    fn enqueue(&mut self, to: CellId, origin: Origin, request: &Request) -> Result<(), Refusal> {
        if !self.live.others().has(to) {
            return Err(Refusal::NotLive);
        }
        let calls = &mut self.peers[usize::from(to.0)].calls;
        if calls.len() >= MAX_CALLS {
            return Err(Refusal::Full);
        }
        request.encode(calls.push_back(origin));
        self.queued = self.queued.with(to);
        Ok(())
    }

    /// Sends a message to a VCPU, wherever it is. One sender's messages to a VCPU are executed in the order in which
    /// they were sent.
    ///
    /// # Errors
    /// Too many wait already, or there is no such VCPU.
    pub fn send(&mut self, to: Vcpu, message: Message, token: u32) -> Result<Sent, Refusal> {
        let me = self.live.me();
        if self.outbox.is_full() {
            return Err(Refusal::Full);
        }
        let here = self.registry.place(to) == Place::Here;
        let Some(number) = self.registry.number(to) else {
            return self.send_late(to, token);
        };
        // With an event left, the cell may not have heard yet that the VCPU is here.
        if here && self.events.is_empty() && !self.outbox.has(to.index) {
            self.registry.message(to, me, self.live.my_incarnation(), number);
            return Ok(Sent::Execute);
        }
        self.outbox.push(to, Want::Execute(number, message), token);
        Ok(Sent::Waits)
    }

    /// A message to a VCPU whose life is over, or that does not exist.
    fn send_late(&mut self, to: Vcpu, token: u32) -> Result<Sent, Refusal> {
        if self.registry.place(to) != Place::Ended {
            return Err(Refusal::NoSuchVcpu);
        }
        self.events.push_back(Event::Sent { token, result: Err(Undelivered::Ended) });
        Ok(Sent::Waits)
    }

    /// Finds out which cell has a VCPU; [`Event::Found`] with this token tells.
    ///
    /// # Errors
    /// Too much waits already.
    pub fn find(&mut self, vcpu: Vcpu, token: u32) -> Result<(), Refusal> {
        if self.outbox.is_full() {
            return Err(Refusal::Full);
        }
        self.outbox.push(vcpu, Want::Find, token);
        Ok(())
    }

    /// Offers this cell's VCPU to another cell. It must stand still, with its state where `frozen` says, until
    /// [`Event::Left`] or [`Event::Stayed`].
    ///
    /// # Errors
    /// It is not this cell's, the other cell is not live, or too much waits already.
    pub fn offer(&mut self, vcpu: Vcpu, to: CellId, frozen: Frozen) -> Result<(), Refusal> {
        if !self.live.others().has(to) {
            return Err(Refusal::NotLive);
        }
        // With an event left, the cell may not have heard yet that it has the VCPU.
        if !self.events.is_empty() || self.peers[usize::from(to.0)].calls.len() >= MAX_CALLS {
            return Err(Refusal::Full);
        }
        let (moves, marks) = self.registry.leave(vcpu, to).ok_or(Refusal::NotHere)?;
        self.enqueue(to, Origin::Offer(vcpu), &Request::Offer { vcpu, moves, frozen, marks })
    }

    /// Accepts the VCPU that `from` offers, its state having been copied. It becomes this cell's with
    /// [`Event::Arrived`]. False if there is no such offer any more: the copy is worthless.
    pub fn accept(&mut self, from: CellId) -> bool {
        let Some((vcpu, moves, marks)) = self.peers[usize::from(from.0)].offer.take() else {
            return false;
        };
        if !self.registry.arrive(vcpu, from, moves, marks) {
            self.answer(from, Reply::Refused(0));
            return false;
        }
        self.answer(from, Reply::Accepted)
    }

    /// Answers what `from` asked. False if it has died since.
    pub fn answer(&mut self, from: CellId, reply: Reply) -> bool {
        let peer = &mut self.peers[usize::from(from.0)];
        peer.offer = None;
        self.unwritten = self.unwritten.with(from);
        let lasting = !matches!(reply, Reply::Elsewhere(_) | Reply::Moving { .. });
        peer.server.answer(&reply, lasting)
    }

    /// The cells have agreed on a live set that this cell is in. Which of them have left it.
    pub fn agreed(&mut self, live: &LiveSet) -> CellSet {
        let before = self.live.cells();
        let gone = before.minus(live.cells);
        for cell in gone {
            self.cell_down(cell, live.epoch);
        }
        for cell in live.cells.minus(before) {
            self.cell_up(cell, live.incarnations[usize::from(cell.0)], live.epoch);
        }
        if before == live.cells {
            // A cell was to be let in, and did not live to see it.
            self.live.renew(live.epoch);
            self.registry.epoch_changed(None, |_| ());
            self.begin_epoch();
        }
        gone
    }

    /// The survivors have agreed that `cell` is dead, in this epoch. To be called once in each survivor; of several that die in one epoch
    /// for one after the other, before anything else is done.
    pub fn cell_down(&mut self, cell: CellId, epoch: Epoch) {
        self.live.down(cell, epoch);
        let Self { registry, events, .. } = self;
        registry.epoch_changed(Some(cell), |vcpu| events.push_back(Event::Arrived(vcpu)));
        let peer = &mut self.peers[usize::from(cell.0)];
        let origin = core::mem::take(&mut peer.origin);
        if !seeded(Mutant::CallNotUnwound) {
            self.failed(cell, origin);
        }
        while let Some((origin, _)) = self.peers[usize::from(cell.0)].calls.pop_front() {
            self.failed(cell, origin);
        }
        self.meet(cell);
    }

    /// The live cells have agreed that `cell` is back, in this incarnation and epoch. To be called once in each of them.
    pub fn cell_up(&mut self, cell: CellId, incarnation: Incarnation, epoch: Epoch) {
        self.live.up(cell, incarnation, epoch);
        self.registry.epoch_changed(None, |_| ());
        self.meet(cell);
    }

    /// A cell is a stranger, and there is a new epoch.
    fn meet(&mut self, cell: CellId) {
        let peer = &mut self.peers[usize::from(cell.0)];
        peer.client.forget();
        peer.server.forget();
        peer.called = false;
        peer.mute = None;
        peer.offer = None;
        self.busy = self.busy.without(cell);
        self.queued = self.queued.without(cell);
        self.mute = self.mute.without(cell);
        self.begin_epoch();
    }

    /// Whatever is outstanding is to be said in the new epoch.
    fn begin_epoch(&mut self) {
        self.unwritten = self.live.others();
        for cell in self.live.others() {
            let peer = &mut self.peers[usize::from(cell.0)];
            peer.client.epoch_changed();
            peer.server.epoch_changed();
        }
    }

    /// A call will not be executed any more.
    fn failed(&mut self, cell: CellId, origin: Origin) {
        match origin {
            Origin::Nobody => {}
            // The VCPU was that cell's, whether it knew it or not.
            Origin::Take(vcpu) => {
                if seeded(Mutant::TakenBack) {
                    self.registry.take_back(vcpu);
                    self.events.push_back(Event::Stayed { vcpu, why: None });
                }
            }
            Origin::Cell(token) => {
                let result = Err(CellDown);
                self.events.push_back(Event::Returned { token, from: cell, result });
            }
            Origin::Offer(vcpu) => {
                if !seeded(Mutant::DepartureForgotten) && self.registry.stay(vcpu) {
                    self.events.push_back(Event::Stayed { vcpu, why: None });
                }
            }
            Origin::Outbox => {
                if let Some(place) = self.outbox.waiting_for(cell) {
                    self.outbox.set_at(place, None);
                    if seeded(Mutant::GivenUpEarly) {
                        let event = self.undelivered(place, Undelivered::Lost);
                        self.events.push_back(event);
                    }
                }
            }
        }
    }

    /// Does the next thing: looks at the lines that the cells in `from` write, and writes what is to be written. To be
    /// called until it says nothing: with those whose doorbells rang whenever the monitor is entered, and with
    /// all of them now and then, since a ring may be lost. `now` is in the unit of the patience.
    pub fn poll(&mut self, from: CellSet, now: u64, fabric: &mut impl Fabric) -> Option<Event> {
        if !self.events.is_empty() {
            return self.events.pop_front();
        }
        for cell in from.and(self.live.others()) {
            // Most often there is nothing: two words are looked at, and no more.
            let peer = &mut self.peers[usize::from(cell.0)];
            let commit = fabric.commit(cell, Slot::Request);
            if peer.server.takes(cell, &self.live, commit) {
                let request = line::read(fabric, (cell, Slot::Request, commit), Request::decode);
                if let Some(event) = self.serve(cell, request) {
                    return Some(event);
                }
            }
            let peer = &mut self.peers[usize::from(cell.0)];
            let commit = fabric.commit(cell, Slot::Reply);
            if peer.client.takes(cell, &self.live, commit) {
                self.busy = self.busy.without(cell);
                let origin = core::mem::take(&mut peer.origin);
                let reply = line::read(fabric, (cell, Slot::Reply, commit), Reply::decode);
                if let Some(event) = self.returned(cell, origin, reply) {
                    return Some(event);
                }
            }
        }
        for cell in CellSet(self.busy.0 | self.mute.0) {
            let peer = &self.peers[usize::from(cell.0)];
            let (since, patience) = match peer.mute {
                Some(since) => (since, self.patience.div_ceil(MUTE_PART)),
                None => (peer.client.since(), self.patience),
            };
            if now.wrapping_sub(since) >= patience {
                return Some(self.overdue(cell, now));
            }
        }
        if (!self.queued.is_empty() || self.outbox.len() != 0)
            && let Some(event) = self.dispatch(now)
        {
            return Some(event);
        }
        for cell in self.unwritten.minus(self.mute) {
            if let Some(event) = self.write(cell, now, fabric) {
                return Some(event);
            }
        }
        None
    }

    /// Executes a request, or has the cell execute it.
    fn serve(&mut self, from: CellId, request: Option<Request>) -> Option<Event> {
        match request {
            None => {
                self.answer(from, Reply::Garbled);
                None
            }
            Some(Request::Ping(value)) => {
                self.answer(from, Reply::Pong(value));
                None
            }
            Some(Request::Lookup(vcpu)) => {
                let reply = self.registry.whereabouts(vcpu);
                self.answer(from, reply);
                None
            }
            Some(Request::Deliver { to, number, message }) => {
                let incarnation = self.live.incarnation(from);
                match self.registry.message(to, from, incarnation, number) {
                    Verdict::Answer(reply) => {
                        self.answer(from, reply);
                        None
                    }
                    Verdict::Execute(reply) => {
                        self.answer(from, reply);
                        Some(Event::Execute { vcpu: to, message })
                    }
                }
            }
            Some(Request::Offer { vcpu, moves, frozen, marks }) => {
                if self.registry.can_arrive(vcpu) {
                    self.peers[usize::from(from.0)].offer = Some((vcpu, moves, marks));
                    return Some(Event::Offered { from, vcpu, frozen });
                }
                self.answer(from, Reply::Refused(0));
                None
            }
            Some(Request::Take(vcpu)) => {
                let taken = self.registry.take(vcpu, from);
                self.answer(from, Reply::Done);
                taken.then_some(Event::Arrived(vcpu))
            }
            Some(request @ (Request::Loan(_) | Request::Visit(_))) => {
                Some(Event::Asked { from, request })
            }
        }
    }

    /// A call has been answered.
    fn returned(&mut self, from: CellId, origin: Origin, reply: Reply) -> Option<Event> {
        match origin {
            Origin::Nobody | Origin::Take(_) => None,
            Origin::Cell(token) => Some(Event::Returned { token, from, result: Ok(reply) }),
            Origin::Offer(vcpu) => {
                if reply == Reply::Accepted && self.registry.gone(vcpu, from) {
                    let calls = &mut self.peers[usize::from(from.0)].calls;
                    Request::Take(vcpu).encode(calls.push_front(Origin::Take(vcpu)));
                    self.queued = self.queued.with(from);
                    return Some(Event::Left { vcpu, to: from });
                }
                let why = if let Reply::Refused(why) = reply { why } else { 0 };
                self.registry.stay(vcpu).then_some(Event::Stayed { vcpu, why: Some(why) })
            }
            Origin::Outbox => {
                let place = self.outbox.waiting_for(from)?;
                self.outbox.set_at(place, None);
                let entry = *self.outbox.get(place);
                match reply {
                    Reply::Here { moves } => {
                        self.registry.found(entry.to, from, moves);
                        return Some(self.delivered(place, from));
                    }
                    Reply::Moving { moves } => {
                        self.registry.found(entry.to, from, moves);
                        if entry.want == Want::Find {
                            return Some(self.delivered(place, from));
                        }
                    }
                    Reply::Elsewhere(hint) => self.registry.learn(entry.to, from, hint),
                    Reply::Ended => return Some(self.undelivered(place, Undelivered::Ended)),
                    _ => return Some(self.undelivered(place, Undelivered::Garbled)),
                }
                None
            }
        }
    }

    /// An entry of the outbox has reached its owner.
    fn delivered(&mut self, place: usize, owner: CellId) -> Event {
        let entry = self.outbox.take(place);
        match entry.want {
            Want::Execute(..) => Event::Sent { token: entry.token, result: Ok(()) },
            Want::Find => Event::Found { token: entry.token, vcpu: entry.to, cell: Some(owner) },
        }
    }

    /// An entry of the outbox will never reach an owner.
    fn undelivered(&mut self, place: usize, why: Undelivered) -> Event {
        let entry = if seeded(Mutant::ToldTwice) {
            *self.outbox.get(place)
        } else {
            self.outbox.take(place)
        };
        match entry.want {
            Want::Execute(..) => Event::Sent { token: entry.token, result: Err(why) },
            Want::Find => Event::Found { token: entry.token, vcpu: entry.to, cell: None },
        }
    }

    /// Nothing has been heard of a cell for long: what it was sent is written once more.
    pub(super) fn overdue(&mut self, cell: CellId, now: u64) -> Event {
        let peer = &mut self.peers[usize::from(cell.0)];
        peer.mute = None;
        self.mute = self.mute.without(cell);
        if peer.client.is_waiting() {
            peer.client.late(now);
            self.unwritten = self.unwritten.with(cell);
        }
        if seeded(Mutant::LateIsDead) {
            self.give_up(cell);
        }
        Event::Suspect(cell)
    }

    /// Ends a call without an answer: only to show that it must not.
    fn give_up(&mut self, cell: CellId) {
        let peer = &mut self.peers[usize::from(cell.0)];
        peer.client.finish();
        let origin = core::mem::take(&mut peer.origin);
        self.busy = self.busy.without(cell);
        self.failed(cell, origin);
    }

    /// Gives idle lines something to say.
    fn dispatch(&mut self, now: u64) -> Option<Event> {
        let idle = self.queued.minus(self.busy);
        for cell in idle {
            if self.outbox.len() == 0 || !self.peers[usize::from(cell.0)].called {
                self.next_call(cell, now);
            }
        }
        let mut from = 0;
        while let Some(place) = self.outbox.ready(from) {
            let entry = *self.outbox.get(place);
            match self.registry.target(entry.to, &self.live) {
                Target::Me => return Some(self.reached(place)),
                Target::Lost => return Some(self.undelivered(place, Undelivered::Lost)),
                Target::Ended => return Some(self.undelivered(place, Undelivered::Ended)),
                Target::Cell(cell) if !self.busy.has(cell) => {
                    let request = match entry.want {
                        Want::Find => Request::Lookup(entry.to),
                        Want::Execute(number, message) => {
                            Request::Deliver { to: entry.to, number, message }
                        }
                    };
                    self.outbox.set_at(place, Some(cell));
                    self.peers[usize::from(cell.0)].called = false;
                    request.encode(self.start(cell, Origin::Outbox, now));
                }
                Target::Cell(_) | Target::Wait => {}
            }
            from = place + 1;
        }
        for cell in idle.minus(self.busy) {
            self.next_call(cell, now);
        }
        None
    }

    fn next_call(&mut self, cell: CellId, now: u64) {
        let peer = &mut self.peers[usize::from(cell.0)];
        let Some((origin, packet)) = peer.calls.pop_front() else { return };
        peer.origin = origin;
        peer.client.start(now).set(packet.kind, packet.payload());
        peer.called = !peer.calls.is_empty();
        if !peer.called {
            self.queued = self.queued.without(cell);
        }
        self.busy = self.busy.with(cell);
        self.unwritten = self.unwritten.with(cell);
    }

    /// Begins a call; its request is for the caller to fill in.
    fn start(&mut self, cell: CellId, origin: Origin, now: u64) -> &mut Packet {
        let peer = &mut self.peers[usize::from(cell.0)];
        self.busy = self.busy.with(cell);
        self.unwritten = self.unwritten.with(cell);
        peer.origin = origin;
        peer.client.start(now)
    }

    /// An entry of the outbox is for a VCPU that is this cell's.
    fn reached(&mut self, place: usize) -> Event {
        let me = self.live.me();
        let Entry { to, want, .. } = *self.outbox.get(place);
        let told = self.delivered(place, me);
        if let Want::Execute(number, message) = want {
            let verdict = self.registry.message(to, me, self.live.my_incarnation(), number);
            // Else it was executed elsewhere, and the answer was lost with a cell.
            if let Verdict::Execute(_) = verdict {
                self.events.push_back(told);
                return Event::Execute { vcpu: to, message };
            }
        }
        told
    }

    /// Writes to a cell what is to be written.
    fn write(&mut self, to: CellId, now: u64, fabric: &mut impl Fabric) -> Option<Event> {
        let peer = &mut self.peers[usize::from(to.0)];
        if peer.server.push(to, &self.live, fabric) && peer.client.push(to, &self.live, fabric) {
            self.unwritten = self.unwritten.without(to);
            return None;
        }
        peer.mute = Some(now);
        self.mute = self.mute.with(to);
        if seeded(Mutant::UnreachableIsDead) {
            self.give_up(to);
        }
        Some(Event::Suspect(to))
    }
}
