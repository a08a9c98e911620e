//! The machine as the model checker sees it: some cells, their mailboxes, and everything that can happen to them.
//!
//! Each action is one call into one cell's [`Exchange`], as a CPU makes it under the cell's lock, or something that happens to the
//! machine. Doorbells don't exist here: any cell may look at any other's lines at any time, or never. A cell may die
//! between any two actions, and between any two writes of one action. Beside the machine goes a record of what was said and done,
//! against which every event is checked.

use super::super::registry::Place;
use super::super::{
    CellSet, Epoch, Event, Exchange, Frozen, Incarnation, Live, Message, Refusal, Reply, Request,
    Sent, Vcpu,
};
use super::cases::Case;
use super::explore::Model;
use super::memory::{Lines, View, Write};
use super::part::{Part, Shared};
use super::record::{Check, Fate, Record, broken, name};
use crate::loan::Payload;
use abi::CellId;
use abi::ids::MAX_CELLS;

/// The VCPU that all is about.
pub const VCPU: Vcpu = Vcpu { index: 0, life: 1 };

/// A live cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    exchange: Exchange,
    incarnation: u8,
    /// How many agreements it has heard of.
    heard: u8,
    /// Requests that it is working on.
    asked: Vec<(CellId, Request)>,
    /// Writes that have not reached memory; it does nothing else until they have.
    writes: Vec<Write>,
}

/// What the live set's members have agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Agreement {
    Down(CellId),
    Up(CellId, u8),
}

/// The parts of which states are made.
#[derive(Debug, Default)]
pub struct Parts {
    nodes: Shared<Node>,
    mail: Shared<Vec<Lines>>,
    records: Shared<Record>,
}

impl Parts {
    fn share(&self, mut state: State) -> State {
        state.nodes.iter_mut().flatten().for_each(|node| self.nodes.share(node));
        state.mail.iter_mut().for_each(|mail| self.mail.share(mail));
        self.records.share(&mut state.record);
        state
    }
}

/// A state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    nodes: Vec<Option<Part<Node>>>,
    mail: Vec<Part<Vec<Lines>>>,
    agreed: Vec<Agreement>,
    incarnations: [u8; MAX_CELLS],
    record: Part<Record>,
    moves: u8,
    refusals: u8,
    deaths: u8,
    reboots: u8,
    failures: u8,
}

/// What a cell does in one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Looks at the lines that a cell writes, or at none.
    Poll(Option<CellId>),
    /// Grows impatient with a cell.
    Impatient(CellId),
    /// Sends its next message.
    Send,
    /// Searches for the VCPU.
    Find,
    /// Makes its next call of that number in the case.
    Call(usize),
    /// Answers what it was asked first.
    Answer,
    /// Offers the VCPU.
    Offer(CellId),
    /// Hears of the next agreement.
    Hear,
}

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A cell does something.
    Does(CellId, Doing),
    /// A cell looks at a cell's lines, and its first write ends in a bus error.
    FailsTo(CellId, Doing),
    /// A cell looks at a cell's lines, and refuses the VCPU that it finds offered.
    Refuses(CellId, Doing),
    /// A cell dies after so many writes of what it does.
    DiesDoing(CellId, Doing, u8),
    /// A cell dies.
    Dies(CellId),
    /// The next write of a cell reaches memory.
    Lands(CellId),
    /// A dead cell comes back.
    Reboots(CellId),
}

impl Case {
    fn cell_ids(&self) -> impl Iterator<Item = CellId> + use<> {
        (0..self.cells as u8).map(CellId)
    }

    /// A cell at its boot.
    fn boot(&self, cell: CellId, incarnations: &[u8; MAX_CELLS], up: CellSet, heard: u8) -> Node {
        let mut known = [Incarnation(0); MAX_CELLS];
        for up in up {
            known[usize::from(up.0)] = Incarnation(incarnations[usize::from(up.0)].into());
        }
        let live = Live::new(cell, Epoch(u16::from(heard) + 1), known);
        Node {
            exchange: Exchange::new(live, self.cells, 1, 4, 1),
            incarnation: incarnations[usize::from(cell.0)],
            heard,
            asked: Vec::new(),
            writes: Vec::new(),
        }
    }
}

impl State {
    fn up(&self) -> CellSet {
        let mut up = CellSet::NONE;
        for (cell, node) in (0..).zip(&self.nodes) {
            if node.is_some() {
                up = up.with(CellId(cell));
            }
        }
        up
    }

    fn node(&self, cell: CellId) -> Option<&Node> {
        self.nodes[usize::from(cell.0)].as_deref()
    }

    /// A write reaches its reader's memory, if that is still there.
    fn land(&mut self, from: CellId, write: &Write) {
        let (Write::Payload(to, slot, _) | Write::Commit(to, slot, _)) = *write;
        if self.node(to).is_some() {
            self.mail[usize::from(to.0)].change(|mail| {
                let line = &mut mail[usize::from(from.0)][slot as usize];
                match *write {
                    Write::Payload(_, _, payload) => line.payload = payload,
                    Write::Commit(_, _, commit) => line.commit = commit,
                }
            });
        }
    }

    /// A cell is gone, with all that was in it.
    fn die(&mut self, cell: CellId) {
        let up = self.up();
        self.record.change(|record| record.die(cell, up));
        self.nodes[usize::from(cell.0)] = None;
        self.mail[usize::from(cell.0)] = Part::new(vec![Lines::default(); self.nodes.len()]);
        self.agreed.push(Agreement::Down(cell));
        self.deaths -= 1;
    }
}

/// One cell doing something.
struct Actor<'a> {
    state: &'a mut State,
    cell: CellId,
    node: Node,
    refuse: bool,
    refused: bool,
}

impl Actor<'_> {
    fn does(&mut self, case: &Case, doing: Doing, fail: &mut bool) -> Check {
        match doing {
            Doing::Poll(from) => {
                let mail = self.state.mail[usize::from(self.cell.0)].clone();
                let up = self.state.up();
                let mut view = View { mail: &mail, up, fail, writes: &mut self.node.writes };
                let from = from.map_or(CellSet::NONE, CellSet::one);
                match self.node.exchange.poll(from, 0, &mut view) {
                    Some(event) => self.handle(event),
                    None => Ok(()),
                }
            }
            Doing::Impatient(cell) => {
                self.node.exchange.overdue(cell, 0);
                Ok(())
            }
            Doing::Send => {
                let (cell, incarnation) = (self.cell, self.node.incarnation);
                let exchange = &mut self.node.exchange;
                self.state.record.change(|record| {
                    let sent = record.messages_of(cell, incarnation);
                    let name = name(cell, incarnation, sent.len());
                    let message = Message::Probe(name.into());
                    sent.push(Fate::default());
                    match exchange.send(VCPU, message, name) {
                        Ok(Sent::Waits) => Ok(()),
                        Ok(Sent::Execute) => {
                            record.execute(cell, exchange.registry().place(VCPU), message)?;
                            record.told(name, Ok(()))
                        }
                        Err(_) => broken("a message was not taken"),
                    }
                })
            }
            Doing::Find => {
                let index = usize::from(self.cell.0);
                self.state.record.change(|record| record.searches[index].0 += 1);
                match self.node.exchange.find(VCPU, 0) {
                    Ok(()) => Ok(()),
                    Err(_) => broken("a search was not taken"),
                }
            }
            Doing::Call(call) => {
                let callee = CellId(case.calls[call].1 as u8);
                let incarnation = self.node.incarnation;
                let exchange = &mut self.node.exchange;
                self.state.record.change(|record| {
                    let made = record.calls_of(call, incarnation);
                    let name = name(CellId(call as u8), incarnation, made.len());
                    let request = Request::Loan(Payload::new(&[u64::from(name)]));
                    let told = exchange.call(callee, &request, name).is_err().then_some(false);
                    made.push(Fate { executed: 0, told });
                });
                Ok(())
            }
            Doing::Answer => {
                let (from, request) = self.node.asked.remove(0);
                let reply = self.state.record.change(|record| record.serve(request))?;
                self.node.exchange.answer(from, reply);
                Ok(())
            }
            Doing::Offer(to) => {
                match self.node.exchange.offer(VCPU, to, Frozen::default()) {
                    Ok(()) => self.state.record.change(|record| record.offer(self.cell, to)),
                    Err(Refusal::Full) => {}
                    Err(_) => return broken("an offer was not taken"),
                }
                Ok(())
            }
            Doing::Hear => {
                let agreement = self.state.agreed[usize::from(self.node.heard)];
                self.node.heard += 1;
                let epoch = Epoch(u16::from(self.node.heard) + 1);
                match agreement {
                    Agreement::Down(cell) => {
                        self.node.asked.retain(|&(from, _)| from != cell);
                        self.node.exchange.cell_down(cell, epoch);
                    }
                    Agreement::Up(cell, incarnation) => {
                        let incarnation = Incarnation(incarnation.into());
                        self.node.exchange.cell_up(cell, incarnation, epoch);
                    }
                }
                Ok(())
            }
        }
    }

    fn handle(&mut self, event: Event) -> Check {
        let Self { state, cell, node, .. } = self;
        let up = state.up();
        let record = &mut state.record;
        let place = |node: &Node| node.exchange.registry().place(VCPU);
        match event {
            Event::Asked { from, request } => {
                node.asked.push((from, request));
                Ok(())
            }
            Event::Offered { from, .. } => {
                if self.refuse {
                    self.refused = true;
                    node.exchange.answer(from, Reply::Refused(7));
                    return Ok(());
                }
                if !up.has(from) {
                    // Its state can't be read any more.
                    node.exchange.answer(from, Reply::Refused(8));
                    return Ok(());
                }
                let taken = node.exchange.accept(from);
                record.change(|record| record.copied(from, *cell, taken));
                if node.exchange.registry().place(VCPU) == Place::Here {
                    return broken("two cells own the VCPU");
                }
                Ok(())
            }
            Event::Execute { message, .. } => {
                record.change(|record| record.execute(*cell, place(node), message))
            }
            Event::Sent { token, result } => record.change(|record| record.told(token, result)),
            Event::Returned { token, from, result } => {
                let dead = !node.exchange.live().is_up(from)
                    || usize::from(node.heard) > 1
                    || !up.has(from);
                record.change(|record| record.returned(token, result, dead))
            }
            Event::Arrived(_) | Event::Stayed { .. } => record.change(|record| record.own(*cell)),
            Event::Left { to, .. } => {
                record.change(|record| record.left(up.has(to)));
                Ok(())
            }
            Event::Found { cell: found, .. } => record.change(|record| record.found(*cell, found)),
            Event::Suspect(_) => Ok(()),
        }
    }
}

impl Case {
    fn act(&self, state: &State, cell: CellId, doing: Doing, how: How) -> Check<Option<State>> {
        let mut next = state.clone();
        let index = usize::from(cell.0);
        let Some(before) = next.nodes[index].clone() else { return Ok(None) };
        let mut fail = how == How::Fails;
        let mut actor = Actor {
            state: &mut next,
            cell,
            node: (*before).clone(),
            refuse: how == How::Refuses,
            refused: false,
        };
        actor.does(self, doing, &mut fail)?;
        let (mut node, refused) = (actor.node, actor.refused);
        match how {
            How::Fails if fail => return Ok(None),
            How::Fails => next.failures -= 1,
            How::Refuses if !refused => return Ok(None),
            How::Refuses => next.refusals -= 1,
            How::Well | How::Dies(_) => {}
        }
        if matches!(doing, Doing::Offer(_)) && next.record != state.record {
            next.moves -= 1;
        }
        match how {
            How::Dies(after) => {
                let after = usize::from(after);
                if after >= node.writes.len() {
                    return Ok(None);
                }
                // What it said to itself in the end nobody knows; what it said to others counts.
                let mut dead = state.clone();
                dead.record = next.record.clone();
                for write in &node.writes[..after] {
                    dead.land(cell, write);
                }
                dead.die(cell);
                return Ok(Some(dead));
            }
            _ if self.torn => {}
            _ => {
                for write in std::mem::take(&mut node.writes) {
                    next.land(cell, &write);
                }
            }
        }
        if node != *before {
            next.nodes[index] = Some(Part::new(node));
        }
        Ok((next != *state).then_some(next))
    }
}

impl Case {
    /// How many halves of lines a cell writes in an action.
    fn writes(&self, state: &State, cell: CellId, doing: Doing) -> u8 {
        let Some(node) = state.node(cell) else { return 0 };
        let mut state = state.clone();
        let mut actor =
            Actor { node: node.clone(), state: &mut state, cell, refuse: false, refused: false };
        // Whether it is in order is found when it is done.
        let _ = actor.does(self, doing, &mut false);
        actor.node.writes.len() as u8
    }
}

/// How a cell fares in what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Well,
    Fails,
    Refuses,
    Dies(u8),
}

impl Model for Case {
    type State = State;
    type Action = Action;

    fn start(&self) -> State {
        let incarnations = [1; MAX_CELLS];
        let up = CellSet::first(self.cells);
        let owner = CellId(self.owner as u8);
        let nodes = self.cell_ids().map(|cell| {
            let mut node = self.boot(cell, &incarnations, up, 0);
            if cell == owner {
                node.exchange.begin(VCPU, owner);
            } else if let Some(&Some(hint)) = self.hints.get(usize::from(cell.0)) {
                node.exchange.begin(VCPU, CellId(hint as u8));
            }
            Some(Part::new(node))
        });
        State {
            nodes: nodes.collect(),
            mail: self.cell_ids().map(|_| Part::new(vec![Lines::default(); self.cells])).collect(),
            agreed: Vec::new(),
            incarnations,
            record: Part::new(Record::new(self.cells, self.calls.len(), owner)),
            moves: self.moves,
            refusals: self.refusals,
            deaths: self.deaths,
            reboots: self.reboots,
            failures: self.failures,
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for cell in self.cell_ids() {
            let Some(node) = state.node(cell) else {
                // It comes back only when every survivor has heard of its death.
                let known = |node: &Node| usize::from(node.heard) == state.agreed.len();
                if state.reboots > 0 && state.nodes.iter().flatten().all(|node| known(node)) {
                    actions.push(Action::Reboots(cell));
                }
                continue;
            };
            if state.deaths > 0 {
                actions.push(Action::Dies(cell));
            }
            if !node.writes.is_empty() {
                actions.push(Action::Lands(cell));
                continue;
            }
            let others = || self.cell_ids().filter(move |&other| other != cell);
            let mut polls: Vec<Doing> = others().map(|from| Doing::Poll(Some(from))).collect();
            polls.push(Doing::Poll(None));
            for doing in polls {
                actions.push(Action::Does(cell, doing));
                if state.failures > 0 {
                    actions.push(Action::FailsTo(cell, doing));
                }
                if state.refusals > 0 {
                    actions.push(Action::Refuses(cell, doing));
                }
                if state.deaths > 0 && !self.torn {
                    let writes = self.writes(state, cell, doing);
                    actions.extend((1..writes).map(|n| Action::DiesDoing(cell, doing, n)));
                }
            }
            if self.impatience {
                actions.extend(others().map(|other| Action::Does(cell, Doing::Impatient(other))));
            }
            let messages = &state.record.messages[usize::from(cell.0)];
            let sent = messages[usize::from(node.incarnation) - 1].len();
            let wanted = self.messages.get(usize::from(cell.0)).copied().unwrap_or(0);
            if sent < usize::from(wanted) {
                actions.push(Action::Does(cell, Doing::Send));
            }
            let wanted = self.searches.get(usize::from(cell.0)).copied().unwrap_or(0);
            if state.record.searches[usize::from(cell.0)].0 < wanted {
                actions.push(Action::Does(cell, Doing::Find));
            }
            for (call, &(caller, _, wanted)) in self.calls.iter().enumerate() {
                let made = state.record.calls[call][usize::from(node.incarnation) - 1].len();
                if caller == usize::from(cell.0) && made < usize::from(wanted) {
                    actions.push(Action::Does(cell, Doing::Call(call)));
                }
            }
            if !node.asked.is_empty() {
                actions.push(Action::Does(cell, Doing::Answer));
            }
            if state.moves > 0 && state.record.owner == Some(cell) {
                let live = node.exchange.live().others();
                actions.extend(live.map(|to| Action::Does(cell, Doing::Offer(to))));
            }
            if usize::from(node.heard) < state.agreed.len() {
                actions.push(Action::Does(cell, Doing::Hear));
            }
        }
    }

    fn next(&self, state: &State, action: Action) -> Check<Option<State>> {
        Ok(self.follow(state, action)?.map(|state| self.parts.share(state)))
    }

    fn is_end(&self, state: &State) -> Check<bool> {
        self.has_ended(state)
    }
}

impl Case {
    fn follow(&self, state: &State, action: Action) -> Check<Option<State>> {
        match action {
            Action::Does(cell, doing) => self.act(state, cell, doing, How::Well),
            Action::FailsTo(cell, doing) => self.act(state, cell, doing, How::Fails),
            Action::Refuses(cell, doing) => self.act(state, cell, doing, How::Refuses),
            Action::DiesDoing(cell, doing, writes) => {
                self.act(state, cell, doing, How::Dies(writes))
            }
            Action::Dies(cell) => {
                let mut next = state.clone();
                next.die(cell);
                Ok(Some(next))
            }
            Action::Lands(cell) => {
                let mut next = state.clone();
                let Some(node) = &mut next.nodes[usize::from(cell.0)] else { return Ok(None) };
                let write = node.change(|node| node.writes.remove(0));
                next.land(cell, &write);
                Ok(Some(next))
            }
            Action::Reboots(cell) => {
                let mut next = state.clone();
                let index = usize::from(cell.0);
                next.incarnations[index] += 1;
                next.agreed.push(Agreement::Up(cell, next.incarnations[index]));
                next.reboots -= 1;
                let heard = next.agreed.len() as u8;
                let up = next.up().with(cell);
                next.nodes[index] = Some(Part::new(self.boot(cell, &next.incarnations, up, heard)));
                Ok(Some(next))
            }
        }
    }

    fn has_ended(&self, state: &State) -> Check<bool> {
        let record = &state.record;
        let mut settled = record.transit.is_none() && (record.lost || record.owner.is_some());
        for cell in self.cell_ids() {
            let Some(node) = state.node(cell) else { continue };
            let incarnation = usize::from(node.incarnation) - 1;
            let wanted = self.messages.get(usize::from(cell.0)).copied().unwrap_or(0);
            let searches = self.searches.get(usize::from(cell.0)).copied().unwrap_or(0);
            settled &= searches == record.searches[usize::from(cell.0)].0;
            settled &= node.exchange.is_quiet()
                && node.writes.is_empty()
                && node.asked.is_empty()
                && usize::from(node.heard) == state.agreed.len()
                && record.messages[usize::from(cell.0)][incarnation].len() == usize::from(wanted);
            for (calls, &(caller, _, wanted)) in record.calls.iter().zip(&self.calls) {
                settled &= caller != usize::from(cell.0)
                    || calls[incarnation].len() == usize::from(wanted);
            }
        }
        if !settled {
            return Ok(false);
        }
        for cell in self.cell_ids() {
            let Some(node) = state.node(cell) else { continue };
            let here = node.exchange.registry().place(VCPU) == Place::Here;
            if here != (record.owner == Some(cell)) {
                return broken("the registry is wrong about who owns the VCPU");
            }
            let (begun, ended) = record.searches[usize::from(cell.0)];
            if begun != ended {
                return broken("a search never ended");
            }
            let incarnation = usize::from(node.incarnation) - 1;
            let sent = &record.messages[usize::from(cell.0)][incarnation];
            if sent.iter().any(|fate| fate.told.is_none()) {
                return broken("a sender was never told");
            }
            if !record.lost && sent.iter().any(|fate| fate.executed != 1) {
                return broken("a message was not executed exactly once");
            }
            for (calls, &(caller, _, _)) in record.calls.iter().zip(&self.calls) {
                let mine = caller == usize::from(cell.0);
                if mine && calls[incarnation].iter().any(|fate| fate.told.is_none()) {
                    return broken("a caller was never told");
                }
            }
        }
        Ok(true)
    }
}
