//! The agreement on the live set, searched: some cells that say what they find of each other, and everything that can happen to
//! them.
//!
//! An action is a cell's look at all others, with what it finds just then, or something that happens to the machine. A look may find
//! less than is so (it comes too early), and that of a cell that doubts may find that another one does not answer which does. A cell
//! may die between any two writes of one look. Whoever is excluded parks; whom the others can reach is fenced off when they exclude
//! it.

use super::super::line::Slot;
use super::super::{Agreement, Ballot, CellSet, Decision, Epoch, Finding, Incarnation, LiveSet};
use super::explore::Model;
use super::memory::{Lines, View, Write};
use super::record::{Check, broken};
use abi::CellId;
use abi::ids::MAX_CELLS;

/// What is searched.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// Its name.
    pub name: &'static str,
    /// Cells.
    pub cells: usize,
    /// Nodes of each cell; 1 where nothing is said.
    pub nodes: Vec<u8>,
    /// Deaths.
    pub deaths: u8,
    /// The cells on one side of a cut that may happen; none: nothing is cut.
    pub cut: CellSet,
    /// Whether a cut may heal.
    pub heals: bool,
    /// A cell that may find at any time that any other does not answer, which does.
    pub doubter: Option<CellId>,
    /// How often a cell stops for a while, or for ever.
    pub hangs: u8,
    /// Dead cells that come back.
    pub reboots: u8,
    /// Cells that have been lost before it begins.
    pub lost: CellSet,
    /// Whether the others go on between two writes of a cell.
    pub torn: bool,
}

/// A cell that has not died.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    agreement: Agreement,
    /// What it has agreed to, oldest first.
    history: Vec<LiveSet>,
    hangs: bool,
    /// What it was told by a look that does not come from the truth.
    doubts: CellSet,
    /// Writes that have not reached memory; it does nothing else until they have.
    writes: Vec<Write>,
}

/// A state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    members: Vec<Option<Member>>,
    mail: Vec<Vec<Lines>>,
    incarnations: [u16; MAX_CELLS],
    /// The cut is there.
    cut: bool,
    /// Cells that may be lost although they have not died: they have been cut off, or hung.
    excused: CellSet,
    cuts: u8,
    deaths: u8,
    hangs: u8,
    reboots: u8,
}

/// What a look finds: of the cells that do not answer those, and whether it is so for so long that it despairs.
type Found = (CellSet, bool);

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A cell looks.
    Looks(CellId, Found),
    /// A cell says again what it says.
    Beats(CellId),
    /// A cell dies after so many writes of what it does.
    DiesLooking(CellId, Found, u8),
    /// A cell dies.
    Dies(CellId),
    /// A cell finds that another one does not answer, though it does.
    Doubts(CellId, CellId),
    /// It finds that it answers.
    Trusts(CellId),
    /// A cell stops.
    Hangs(CellId),
    /// It goes on.
    Recovers(CellId),
    /// Two sides can't reach each other any more.
    Cuts,
    /// They can again.
    Heals,
    /// The next write of a cell reaches memory.
    Lands(CellId),
    /// A dead cell comes back.
    Reboots(CellId),
}

impl Members {
    fn ids(&self) -> impl Iterator<Item = CellId> + use<> {
        (0..self.cells as u8).map(CellId)
    }

    /// The nodes of all cells: in their order.
    fn nodes(&self) -> [u8; MAX_CELLS] {
        let mut first = 0;
        core::array::from_fn(|cell| {
            if cell >= self.cells {
                return 0;
            }
            let count = self.nodes.get(cell).copied().unwrap_or(1);
            first += count;
            ((1 << count) - 1) << (first - count)
        })
    }

    /// The cells that survive for certain, if nothing happens but a cut.
    fn winners(&self) -> CellSet {
        if self.deaths + self.hangs > 0 {
            return CellSet::NONE;
        }
        let nodes = self.nodes();
        let weigh = |side: CellSet| {
            let nodes = side.fold(0, |set, cell| set | nodes[usize::from(cell.0)]);
            (nodes.count_ones(), u8::MAX - nodes.trailing_zeros() as u8)
        };
        let (one, other) = (self.cut, CellSet::first(self.cells).minus(self.cut));
        if weigh(one) > weigh(other) { one } else { other }
    }

    /// The cells on a cell's side, if there is a cut.
    fn side(&self, state: &State, cell: CellId) -> CellSet {
        let all = CellSet::first(self.cells);
        match (state.cut, self.cut.has(cell)) {
            (false, _) => all,
            (true, true) => self.cut,
            (true, false) => all.minus(self.cut),
        }
    }

    /// What a cell finds.
    fn find(
        &self,
        state: &State,
        cell: CellId,
        member: &Member,
        (found, despairs): Found,
    ) -> Finding {
        let near = self.side(state, cell);
        let far = CellSet::first(self.cells).minus(near);
        let mut finding = Finding { dead: state.gone().and(near).and(found), ..Finding::default() };
        for cell in far.and(found) {
            finding.sides[usize::from(cell.0)] = far;
        }
        finding.suspects = CellSet(found.0 | member.doubts.0);
        if despairs {
            finding.despaired = far.and(found);
        }
        finding
    }

    /// The cells that do not answer a cell.
    fn silent(&self, state: &State, cell: CellId) -> CellSet {
        let mut silent = CellSet::first(self.cells).minus(self.side(state, cell));
        for other in self.ids() {
            if state.member(other).is_none_or(|other| other.hangs) {
                silent = silent.with(other);
            }
        }
        silent
    }

    /// A cell looks until there is nothing more to do.
    fn look(&self, state: &State, cell: CellId, found: Found) -> Check<(State, Option<Member>)> {
        let mut next = state.clone();
        let Some(mut member) = next.member(cell).cloned() else { return Ok((next, None)) };
        let finding = self.find(&next, cell, &member, found);
        loop {
            let mail = next.mail[usize::from(cell.0)].clone();
            let up = self.side(&next, cell).minus(next.gone());
            let mut fail = false;
            let writes = &mut member.writes;
            let mut view = View { mail: &mail, up, fail: &mut fail, writes };
            match member.agreement.step(&finding, &mut view) {
                None => break,
                Some(Decision::Live(live)) => {
                    self.agreed(&mut next, cell, &mut member, live)?;
                }
                Some(Decision::Excluded) => {
                    if !next.excused.has(cell) || self.winners().has(cell) {
                        return broken("a cell was excluded that should not have been");
                    }
                    next.members[usize::from(cell.0)] = None;
                    return Ok((next, None));
                }
            }
        }
        Ok((next, Some(member)))
    }

    /// A cell goes on to the next epoch.
    fn agreed(&self, next: &mut State, cell: CellId, member: &mut Member, live: LiveSet) -> Check {
        if !live.cells.has(cell) {
            return broken("a cell agreed to a live set without itself");
        }
        let index = usize::from(cell.0);
        if live.incarnations[index].0 != next.incarnations[index] {
            return broken("a cell agreed to a live set with another incarnation of itself");
        }
        let last = member.history.last();
        if last.is_some_and(|last| last.epoch.next() != live.epoch) {
            return broken("a cell missed an agreement");
        }
        let before = last.map_or(CellSet::NONE, |last| last.cells);
        for gone in before.minus(live.cells) {
            if next.member(gone).is_none() {
                continue;
            }
            let index = usize::from(gone.0);
            let known = last.map_or(0, |last| last.incarnations[index].0);
            if next.incarnations[index] != known {
                continue;
            }
            if !next.excused.has(gone) {
                return broken("a cell was given up that was never cut off");
            }
            if self.side(next, cell).has(gone) {
                // It is fenced off.
                next.members[index] = None;
            }
        }
        member.history.push(live);
        Ok(())
    }

    fn follow(&self, state: &State, action: Action) -> Check<Option<State>> {
        let mut next = state.clone();
        match action {
            Action::Looks(cell, found) => {
                let (after, member) = self.look(state, cell, found)?;
                next = after;
                if let Some(mut member) = member {
                    let writes = std::mem::take(&mut member.writes);
                    next.members[usize::from(cell.0)] = Some(member);
                    if self.torn {
                        next.change(cell, |member| member.writes = writes);
                    } else {
                        writes.iter().for_each(|write| next.land(cell, write));
                    }
                }
            }
            Action::DiesLooking(cell, found, after) => {
                let (looked, member) = self.look(state, cell, found)?;
                let Some(member) = member else { return Ok(None) };
                // Whom it has fenced off stays so.
                next = looked;
                for write in &member.writes[..usize::from(after).min(member.writes.len())] {
                    next.land(cell, write);
                }
                next.die(cell);
                next.deaths -= 1;
            }
            Action::Beats(cell) => {
                // Those who have dropped it are told something else.
                let dropped = state.has_dropped(cell);
                next.change(cell, |member| {
                    let beat = member.agreement.ballot().beat;
                    member.agreement.beat(if dropped { beat ^ 1 } else { beat });
                });
            }
            Action::Dies(cell) => {
                next.die(cell);
                next.deaths -= 1;
            }
            Action::Doubts(cell, of) => {
                next.change(cell, |member| member.doubts = member.doubts.with(of));
            }
            Action::Trusts(cell) => next.change(cell, |member| member.doubts = CellSet::NONE),
            Action::Hangs(cell) => {
                next.change(cell, |member| member.hangs = true);
                next.excused = next.excused.with(cell);
                next.hangs -= 1;
            }
            Action::Recovers(cell) => next.change(cell, |member| member.hangs = false),
            Action::Cuts => {
                next.cut = true;
                next.cuts -= 1;
                next.excused = CellSet::first(self.cells);
            }
            Action::Heals => next.cut = false,
            Action::Lands(cell) => {
                let mut write = None;
                next.change(cell, |member| write = Some(member.writes.remove(0)));
                if let Some(write) = write {
                    next.land(cell, &write);
                }
            }
            Action::Reboots(cell) => {
                let index = usize::from(cell.0);
                next.incarnations[index] += 1;
                next.reboots -= 1;
                let mut live = LiveSet {
                    epoch: Epoch(0),
                    cells: CellSet::NONE,
                    incarnations: [Incarnation(0); MAX_CELLS],
                };
                live.incarnations[index] = Incarnation(next.incarnations[index]);
                next.members[index] = Some(self.member(cell, live, Vec::new()));
            }
        }
        self.check(&next)?;
        Ok((next != *state).then_some(next))
    }

    fn member(&self, cell: CellId, live: LiveSet, history: Vec<LiveSet>) -> Member {
        Member {
            agreement: Agreement::new(cell, self.nodes(), live),
            history,
            hangs: false,
            doubts: CellSet::NONE,
            writes: Vec::new(),
        }
    }

    /// What must be so in every state.
    fn check(&self, state: &State) -> Check {
        for one in self.ids() {
            for other in self.ids().filter(|other| *other > one) {
                let (Some(a), Some(b)) = (state.member(one), state.member(other)) else {
                    continue;
                };
                let (a, b) = (a.agreement.live(), b.agreement.live());
                if a.cells.is_empty() || b.cells.is_empty() {
                    continue;
                }
                let knows = |live: &LiveSet, cell: CellId| {
                    let incarnation = live.incarnations[usize::from(cell.0)];
                    live.cells.has(cell) && incarnation.0 == state.incarnations[usize::from(cell.0)]
                };
                match (knows(a, other), knows(b, one)) {
                    (false, false) => return broken("two sides go on without each other"),
                    (true, true) if a.epoch == b.epoch && a != b => {
                        return broken("two cells agreed to different live sets");
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl State {
    fn member(&self, cell: CellId) -> Option<&Member> {
        self.members[usize::from(cell.0)].as_ref()
    }

    fn change(&mut self, cell: CellId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = &mut self.members[usize::from(cell.0)] {
            change(member);
        }
    }

    /// Cells that do nothing any more.
    fn gone(&self) -> CellSet {
        let mut gone = CellSet::NONE;
        for (cell, member) in (0..).map(CellId).zip(&self.members) {
            if member.is_none() {
                gone = gone.with(cell);
            }
        }
        gone
    }

    /// A write reaches its reader's memory, if that is still there.
    fn land(&mut self, from: CellId, write: &Write) {
        let (Write::Payload(to, slot, _) | Write::Commit(to, slot, _)) = *write;
        if self.member(to).is_some() {
            let line = &mut self.mail[usize::from(to.0)][usize::from(from.0)][slot as usize];
            match *write {
                Write::Payload(_, _, payload) => line.payload = payload,
                Write::Commit(_, _, commit) => line.commit = commit,
            }
        }
    }

    fn die(&mut self, cell: CellId) {
        let index = usize::from(cell.0);
        self.members[index] = None;
        self.mail[index] = vec![Lines::default(); self.members.len()];
    }

    /// Whether a cell asks to be let in, and has to say something else first for one of those who may let it in.
    fn has_dropped(&self, cell: CellId) -> bool {
        self.member(cell).is_some_and(|asks| {
            let ballot = asks.agreement.ballot();
            let asked = self.members.iter().flatten();
            ballot.live.is_empty()
                && asked.into_iter().any(|member| member.agreement.has_dropped(cell, ballot))
        })
    }

    /// Whether anybody is in a live set, and can start a dead cell, whether it has heard of its death or not.
    fn has_members(&self) -> bool {
        self.members.iter().flatten().any(|member| !member.agreement.live().cells.is_empty())
    }
}

impl Model for Members {
    type State = State;
    type Action = Action;

    fn start(&self) -> State {
        let mut incarnations = [0; MAX_CELLS];
        incarnations[..self.cells].fill(1);
        let mut live = LiveSet {
            epoch: Epoch(1),
            cells: CellSet::first(self.cells).minus(self.lost),
            incarnations: incarnations.map(Incarnation),
        };
        self.lost.for_each(|cell| live.incarnations[usize::from(cell.0)] = Incarnation(0));
        // Every cell has said that it is there.
        let member = |cell| live.cells.has(cell).then(|| self.member(cell, live, vec![live]));
        let members: Vec<_> = self.ids().map(member).collect();
        let mut state = State {
            members,
            mail: vec![vec![Lines::default(); self.cells]; self.cells],
            incarnations,
            cut: false,
            excused: CellSet::NONE,
            cuts: u8::from(!self.cut.is_empty()),
            deaths: self.deaths,
            hangs: self.hangs,
            reboots: self.reboots,
        };
        for cell in self.ids() {
            let looks = Action::Looks(cell, (CellSet::NONE, false));
            if let Ok(Some(next)) = self.follow(&state, looks) {
                state = next;
            }
            let mut writes = Vec::new();
            state.change(cell, |member| writes.append(&mut member.writes));
            writes.iter().for_each(|write| state.land(cell, write));
        }
        state
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.cuts > 0 {
            actions.push(Action::Cuts);
        }
        if state.cut && self.heals {
            actions.push(Action::Heals);
        }
        for cell in self.ids() {
            let Some(member) = state.member(cell) else {
                if state.reboots > 0 && state.has_members() {
                    actions.push(Action::Reboots(cell));
                }
                continue;
            };
            if state.deaths > 0 {
                actions.push(Action::Dies(cell));
            }
            if member.hangs {
                actions.push(Action::Recovers(cell));
                continue;
            }
            if !member.writes.is_empty() {
                actions.push(Action::Lands(cell));
                continue;
            }
            if state.hangs > 0 {
                actions.push(Action::Hangs(cell));
            }
            if !member.doubts.is_empty() {
                actions.push(Action::Trusts(cell));
            } else if self.doubter == Some(cell) {
                let others = self.ids().filter(|other| *other != cell);
                actions.extend(others.map(|other| Action::Doubts(cell, other)));
            }
            let others = || self.ids().filter(|other| *other != cell);
            let mail = |other: CellId| &state.mail[usize::from(other.0)][usize::from(cell.0)];
            let unknown = Lines::default()[Slot::Ballot as usize];
            if self.reboots > 0
                && member.agreement.is_written(CellSet::first(self.cells).minus(state.gone()))
                && (state.has_dropped(cell)
                    || others().any(|other| {
                        state.member(other).is_some()
                            && mail(other)[Slot::Ballot as usize] == unknown
                    }))
            {
                actions.push(Action::Beats(cell));
            }
            let silent = self.silent(state, cell);
            let far = silent.minus(self.side(state, cell));
            let subsets =
                (0..=silent.0).map(CellSet).filter(|found| found.minus(silent).is_empty());
            for found in subsets.flat_map(|found| [(found, false), (found, true)]) {
                if found.1 && far.and(found.0).is_empty() {
                    continue;
                }
                actions.push(Action::Looks(cell, found));
                if state.deaths > 0
                    && !self.torn
                    && let Ok((_, Some(looked))) = self.look(state, cell, found)
                {
                    let writes = looked.writes.len() as u8;
                    actions.extend((1..writes).map(|n| Action::DiesLooking(cell, found, n)));
                }
            }
        }
    }

    fn next(&self, state: &State, action: Action) -> Check<Option<State>> {
        self.follow(state, action)
    }

    fn is_end(&self, state: &State) -> Check<bool> {
        let gone = state.gone();
        let alive = CellSet::first(self.cells).minus(gone);
        let Some(lowest) = alive.lowest().filter(|_| state.has_members()) else {
            let explained = state.deaths < self.deaths || state.hangs < self.hangs;
            return if explained { Ok(true) } else { broken("nobody is left") };
        };
        let settled = alive.minus(self.side(state, lowest)).is_empty()
            && alive.into_iter().all(|cell| {
                state.member(cell).is_some_and(|member| {
                    let agreement = &member.agreement;
                    agreement.is_quiet()
                        && agreement.live().cells == alive
                        && !member.hangs
                        && member.doubts.is_empty()
                        && member.writes.is_empty()
                        && alive.without(cell).into_iter().all(|other| {
                            let line = &state.mail[usize::from(other.0)][usize::from(cell.0)];
                            Ballot::of(line[Slot::Ballot as usize].commit) == *agreement.ballot()
                        })
                })
            });
        if !settled {
            return Ok(false);
        }
        let mut histories = alive.into_iter().filter_map(|cell| state.member(cell));
        let Some(first) = histories.next() else { return Ok(true) };
        for other in histories {
            let common = first.history.len().min(other.history.len());
            let last = |member: &Member| member.history[member.history.len() - common..].to_vec();
            if last(first) != last(other) {
                return broken("survivors went through different agreements");
            }
        }
        Ok(true)
    }
}
