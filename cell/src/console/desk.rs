//! Where commands go when there are several cells: the leader's side.
//!
//! The *leader* (the lowest cell that lives) has the monitor console, its line editor and the script. A line
//! is asked of the cells it concerns: of the cell that has the VM it names, of all, or of the leader
//! itself; its answer is shown when all have answered, died, or let [`PATIENCE_NS`] pass. The leader
//! asks itself as it asks the others. One question is open at a time.
//!
//! # If the leader dies
//!
//! Nothing here is needed by a successor but what the others can tell it: it makes a new [`Desk`], whose idea
//! of where VMs are is the configuration's; where that is wrong, "elsewhere" is answered and all are asked. A
//! question that was open is lost with its prompt, and its late answers carry a number that is not known.

use super::help::{Reach, topic};
use abi::player::{Order, Result};
use abi::{CellId, VmId};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// How long an answer is waited for, in machine time.
pub const PATIENCE_NS: u64 = 5_000_000_000;

/// What the desk knows of a VM.
#[derive(Clone, Debug)]
pub struct Place {
    /// The VM's name.
    pub name: String,
    /// The cells it may be in, a bit each.
    pub permitted: u8,
    /// Where it is, as far as is known.
    pub cell: CellId,
}

/// An order and the cell it goes to.
pub type Sent = (CellId, Order);

/// The leader's desk.
#[derive(Debug)]
pub struct Desk {
    me: CellId,
    /// The machine has several cells.
    shared: bool,
    live: Vec<CellId>,
    vms: Vec<Place>,
    question: Option<Question>,
    next: u32,
}

/// A line, and what came of it so far.
#[derive(Debug)]
struct Question {
    id: u32,
    line: String,
    since: u64,
    kind: Kind,
    asked: Vec<Asked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One cell is asked, whatever it says.
    One,
    /// All are, and each answer is shown under its cell's name.
    All,
    /// The cell that has the VM is asked; `starts`: a VM that no cell has may start in any, or is to start in `on`, where it was
    /// thought to be.
    Vm { vm: VmId, starts: bool, on: Option<CellId> },
    /// The cell that has the VM is asked to let it go, so that it can start in `to`.
    Move { vm: VmId, to: CellId },
}

#[derive(Debug)]
struct Asked {
    cell: CellId,
    /// `None`: it has not answered to the end yet.
    result: Option<Result>,
    text: String,
}

impl Desk {
    /// The desk of cell `me` in a machine of the cells `live`, for these VMs by number.
    pub fn new(me: CellId, live: impl IntoIterator<Item = CellId>, vms: Vec<Place>) -> Self {
        let live: Vec<CellId> = live.into_iter().collect();
        Self { me, shared: live.len() > 1, live, vms, question: None, next: 0 }
    }

    /// The cells that live, but this one.
    pub fn others(&self) -> impl Iterator<Item = CellId> + '_ {
        self.live.iter().copied().filter(|cell| *cell != self.me)
    }

    /// Where a VM is, as far as is known.
    #[must_use]
    pub fn place(&self, vm: VmId) -> Option<CellId> {
        self.vms.get(usize::from(vm.0)).map(|place| place.cell)
    }

    /// Whether an answer is still waited for.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.question.is_some()
    }

    /// When [`Self::answer`] has one at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.question.as_ref().map(|question| question.since + PATIENCE_NS)
    }

    /// A line was typed at machine time `now`: whom to ask.
    ///
    /// # Errors
    /// What to tell the operator at once.
    ///
    /// # Panics
    /// When another question is open.
    pub fn ask(&mut self, line: &str, now: u64) -> core::result::Result<Vec<Sent>, String> {
        assert!(self.question.is_none(), "one question at a time");
        let (line, on) = self.split_on(line)?;
        let mut words = line.split_whitespace();
        let topic = words.next().and_then(topic);
        let reach = topic.map_or(Reach::Here, |topic| topic.reach);
        let vm = words.next().and_then(|word| self.find(word)).filter(|_| reach == Reach::Vm);
        let starts = topic.is_some_and(|topic| topic.name() == "start");
        let (kind, cells) = match (vm, on) {
            (Some(vm), Some(to)) if starts => {
                let place = &self.vms[usize::from(vm.0)];
                if place.permitted >> to.0 & 1 == 0 {
                    let cells = (0..8).filter(|cell| place.permitted >> cell & 1 != 0);
                    let cells: Vec<String> = cells.map(|cell| format!("{cell}")).collect();
                    return Err(format!(
                        "VM `{}` may not be in cell {to}: its configuration names {}",
                        place.name,
                        cells.join(", ")
                    ));
                }
                if place.cell == to {
                    (Kind::Vm { vm, starts, on }, self.holders(vm))
                } else {
                    (Kind::Move { vm, to }, self.holders(vm))
                }
            }
            (_, Some(cell)) => (Kind::One, [cell].into()),
            (Some(vm), None) => (Kind::Vm { vm, starts, on }, self.holders(vm)),
            (None, None) if reach == Reach::All => (Kind::All, self.live.clone()),
            (None, None) => (Kind::One, [self.me].into()),
        };
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.question =
            Some(Question { id, line: line.into(), since: now, kind, asked: Vec::new() });
        Ok(self.send(&cells, false))
    }

    /// Takes `on CELL` off the end of a line.
    fn split_on<'a>(
        &self,
        line: &'a str,
    ) -> core::result::Result<(&'a str, Option<CellId>), String> {
        let trimmed = line.trim_end();
        let Some((before, number)) = trimmed.rsplit_once(' ') else { return Ok((line, None)) };
        let before = before.trim_end();
        let Some(rest) = before.strip_suffix(" on") else { return Ok((line, None)) };
        let known = |cell: &CellId| self.live.contains(cell);
        match number.parse().ok().map(CellId).filter(known) {
            Some(cell) => Ok((rest, Some(cell))),
            None => {
                let live: Vec<String> = self.live.iter().map(|cell| format!("{cell}")).collect();
                Err(format!("no cell `{number}`: there are {}", live.join(", ")))
            }
        }
    }

    /// The VM that a word names, alone or with the number of a VCPU: `VM` or `VM.N`.
    pub fn find(&self, word: &str) -> Option<VmId> {
        let called = |name: &str| self.vms.iter().position(|vm| vm.name == name);
        let vcpu = || {
            let (name, number) = word.rsplit_once('.')?;
            number.parse::<u32>().ok().and_then(|_| called(name))
        };
        called(word).or_else(vcpu).map(|vm| VmId(vm as u16))
    }

    /// Whom to ask first about a VM: the cell where it is thought to be, or all if that does not live.
    fn holders(&self, vm: VmId) -> Vec<CellId> {
        let cell = self.vms[usize::from(vm.0)].cell;
        if self.live.contains(&cell) { [cell].into() } else { self.live.clone() }
    }

    /// Asks cells the question.
    fn send(&mut self, cells: &[CellId], adopt: bool) -> Vec<Sent> {
        let Some(question) = &mut self.question else { return Vec::new() };
        let id = question.id;
        let order = match question.kind {
            Kind::Move { vm, .. } => Order::Release { id, vm },
            _ => Order::Command { id, adopt, line: question.line.clone() },
        };
        let mut sent = Vec::new();
        for &cell in cells {
            question.asked.push(Asked { cell, result: None, text: String::new() });
            sent.push((cell, order.clone()));
        }
        question.asked.sort_by_key(|asked| asked.cell);
        sent
    }

    /// A cell has answered the order `id`, with more to follow or not: whom to ask next.
    pub fn answered(
        &mut self,
        from: CellId,
        id: u32,
        result: Result,
        text: &str,
        more: bool,
    ) -> Vec<Sent> {
        let Some(question) = self.question.as_mut().filter(|q| q.id == id) else {
            return Vec::new();
        };
        let waited_for = |asked: &&mut Asked| asked.cell == from && asked.result.is_none();
        let Some(asked) = question.asked.iter_mut().find(waited_for) else { return Vec::new() };
        asked.text.push_str(text);
        if more {
            return Vec::new();
        }
        asked.result = Some(result);
        if let Kind::Vm { vm, .. } | Kind::Move { vm, .. } = question.kind
            && result != Result::Elsewhere
        {
            self.vms[usize::from(vm.0)].cell = from;
        }
        self.go_on()
    }

    /// A cell lives no more: whom to ask next.
    pub fn lost(&mut self, cell: CellId) -> Vec<Sent> {
        self.live.retain(|live| *live != cell);
        self.give_up(|asked| asked.cell == cell, "it is lost", Result::Elsewhere)
    }

    /// A VM is in another cell from now on.
    pub fn moved(&mut self, vm: VmId, to: CellId) {
        self.vms[usize::from(vm.0)].cell = to;
    }

    /// Nobody waits for an answer any more.
    pub fn drop_question(&mut self) {
        self.question = None;
    }

    /// A cell that was lost lives again.
    pub fn returned(&mut self, cell: CellId) {
        self.live.retain(|live| *live != cell);
        let place = self.live.partition_point(|live| *live < cell);
        self.live.insert(place, cell);
    }

    /// It is `now`: whom to ask instead of those who do not answer.
    pub fn late(&mut self, now: u64) -> Vec<Sent> {
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.give_up(|_| true, "it does not answer", Result::Refused)
        } else {
            Vec::new()
        }
    }

    /// `of_a_vm`: what that means where a VM is looked for. (What has died has none.)
    fn give_up(&mut self, of: impl Fn(&Asked) -> bool, why: &str, of_a_vm: Result) -> Vec<Sent> {
        let Some(question) = &mut self.question else { return Vec::new() };
        for asked in question.asked.iter_mut().filter(|asked| asked.result.is_none() && of(asked)) {
            let (result, text) = match question.kind {
                Kind::All => (Result::Refused, format!("{why}\n")),
                Kind::One => (Result::Refused, format!("cell {}: {why}\n", asked.cell)),
                Kind::Vm { .. } | Kind::Move { .. } => {
                    (of_a_vm, format!("cell {}: {why}\n", asked.cell))
                }
            };
            (asked.result, asked.text) = (Some(result), text);
        }
        self.go_on()
    }

    /// After an answer: whom to ask next, if nobody who was asked has the VM, or it is free to move.
    fn go_on(&mut self) -> Vec<Sent> {
        let Some(question) = &mut self.question else { return Vec::new() };
        if question.asked.iter().any(|asked| asked.result.is_none()) {
            return Vec::new();
        }
        let (vm, starts) = match question.kind {
            Kind::One | Kind::All => return Vec::new(),
            Kind::Vm { vm, starts, .. } => (vm, starts),
            Kind::Move { vm, .. } => (vm, true),
        };
        let answer = question.asked.iter().filter_map(|asked| asked.result);
        let answer = answer.reduce(|a, b| if a == Result::Elsewhere { b } else { a });
        // Who has it is to let it go, not to start it.
        if let (Some(Result::Elsewhere), Kind::Vm { on: Some(to), .. }) = (answer, question.kind) {
            question.kind = Kind::Move { vm, to };
        }
        let not_asked: Vec<CellId> = self
            .live
            .iter()
            .copied()
            .filter(|cell| question.asked.iter().all(|asked| asked.cell != *cell))
            .collect();
        match (answer, question.kind) {
            (Some(Result::Elsewhere), _) if !not_asked.is_empty() => self.send(&not_asked, false),
            (Some(Result::Done | Result::Elsewhere), Kind::Move { to, .. }) => {
                self.place_in(vm, to)
            }
            (Some(Result::Elsewhere), _) if starts => {
                let place = &self.vms[usize::from(vm.0)];
                let may = |cell: &&CellId| place.permitted >> cell.0 & 1 != 0;
                match self.live.iter().find(may).copied() {
                    Some(to) => self.place_in(vm, to),
                    None => {
                        let why = format!("VM `{}` may be in no cell that lives\n", place.name);
                        self.conclude(why)
                    }
                }
            }
            (Some(Result::Elsewhere), _) => {
                let name = &self.vms[usize::from(vm.0)].name;
                let why =
                    format!("VM `{name}` is in no cell: it was lost with the one it was in\n");
                self.conclude(why)
            }
            _ => Vec::new(),
        }
    }

    /// A VM that no cell has is `to`'s, which is asked.
    fn place_in(&mut self, vm: VmId, to: CellId) -> Vec<Sent> {
        self.vms[usize::from(vm.0)].cell = to;
        if let Some(question) = &mut self.question {
            question.kind = Kind::One;
            question.asked.clear();
        }
        self.send(&[to], true)
    }

    /// There is nothing more to ask.
    fn conclude(&mut self, text: String) -> Vec<Sent> {
        if let Some(question) = &mut self.question {
            question.kind = Kind::One;
            let result = Some(Result::Refused);
            question.asked = [Asked { cell: self.me, result, text }].into();
        }
        Vec::new()
    }

    /// The answer to the question, once everybody has said what there is to say.
    pub fn answer(&mut self) -> Option<String> {
        let question =
            self.question.take_if(|q| q.asked.iter().all(|asked| asked.result.is_some()))?;
        let mut out = String::new();
        for asked in &question.asked {
            match (question.kind, asked.result) {
                (Kind::All, _) if self.shared => {
                    out += &format!("cell {}:\n{}", asked.cell, asked.text)
                }
                (Kind::One, Some(Result::Elsewhere)) => {
                    out += &format!("cell {} does not have that VM\n", asked.cell);
                }
                (_, Some(Result::Elsewhere)) => {}
                _ => out += &asked.text,
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec;
    use std::collections::BTreeSet;

    /// Four cells that have VMs and answer, in any order.
    struct Cluster {
        desk: Desk,
        /// Of each cell: its VMs, and those of them that run.
        cells: Vec<(BTreeSet<u16>, BTreeSet<u16>)>,
        silent: BTreeSet<u8>,
        asked: usize,
    }

    impl Cluster {
        /// VM `vN` is in cell N mod 4; `v9` may only be in 1 and 2.
        fn new() -> Self {
            let place = |vm: u8| Place {
                name: format!("v{vm}"),
                permitted: if vm == 9 { 0b0110 } else { 0b1111 },
                cell: CellId(vm % 4),
            };
            let desk = Desk::new(CellId(0), (0..4).map(CellId), (0..10).map(place).collect());
            let own = |cell| (0..10).filter(|vm| vm % 4 == cell).collect();
            let cells = (0..4).map(|cell| (own(cell), BTreeSet::new())).collect();
            Self { desk, cells, silent: BTreeSet::new(), asked: 0 }
        }

        fn obey(&mut self, cell: CellId, order: &Order) -> (u32, Result, String) {
            let (own, running) = &mut self.cells[usize::from(cell.0)];
            let number = |name: &str| name.trim_start_matches('v').parse::<u16>().unwrap();
            match order {
                Order::Release { id, vm } => {
                    if running.contains(&vm.0) {
                        (*id, Result::Refused, format!("v{vm} runs\n"))
                    } else if own.remove(&vm.0) {
                        (*id, Result::Done, String::new())
                    } else {
                        (*id, Result::Elsewhere, String::new())
                    }
                }
                Order::Command { id, adopt, line } => {
                    let words: Vec<&str> = line.split(' ').collect();
                    let Some(name) = words.get(1) else {
                        return (*id, Result::Done, format!("{line} of {cell}\n"));
                    };
                    let vm = number(name.split('.').next().unwrap());
                    if *adopt {
                        own.insert(vm);
                    }
                    if !own.contains(&vm) {
                        return (*id, Result::Elsewhere, String::new());
                    }
                    if words[0] == "start" {
                        running.insert(vm);
                    }
                    (*id, Result::Done, format!("{line} in {cell}\n"))
                }
                Order::Type { .. } | Order::Inherit { .. } => panic!("{order:?}"),
            }
        }

        /// Types a line; the answer. `last_first`: which of the open orders is answered next.
        fn type_in(&mut self, line: &str, last_first: bool) -> String {
            let mut open: VecDeque<Sent> = match self.desk.ask(line, 100) {
                Ok(sent) => sent.into(),
                Err(error) => return error,
            };
            self.asked = open.len();
            loop {
                if let Some(answer) = self.desk.answer() {
                    assert!(!self.desk.is_busy() && open.is_empty());
                    return answer;
                }
                let next = if last_first { open.pop_back() } else { open.pop_front() };
                let more = match next {
                    Some((cell, _)) if self.silent.contains(&cell.0) => Vec::new(),
                    Some((cell, order)) => {
                        let (id, result, text) = self.obey(cell, &order);
                        // In two pieces, and a stranger's and a late one between them.
                        let (one, two) = text.split_at(text.len() / 2);
                        assert_eq!(self.desk.answered(cell, id, result, one, true), []);
                        let stranger = self.desk.answered(CellId(7), id, Result::Done, "x", false);
                        let late =
                            self.desk.answered(cell, id.wrapping_sub(1), Result::Done, "x", false);
                        assert_eq!((stranger, late), (vec![], vec![]));
                        self.desk.answered(cell, id, result, two, false)
                    }
                    None => {
                        let deadline = self.desk.deadline().unwrap();
                        assert_eq!(self.desk.late(deadline - 1), []);
                        self.desk.late(deadline)
                    }
                };
                self.asked += more.len();
                open.extend(more);
            }
        }
    }

    #[test]
    fn commands_go_to_those_they_concern() {
        for last_first in [false, true] {
            let mut cluster = Cluster::new();
            let mut said = |line: &str| {
                let answer = cluster.type_in(line, last_first);
                (answer, cluster.asked)
            };
            let all =
                "cell 0:\nvms of 0\ncell 1:\nvms of 1\ncell 2:\nvms of 2\ncell 3:\nvms of 3\n";
            assert_eq!(said("vms"), (all.into(), 4));
            assert_eq!(said("vms on 2"), ("vms of 2\n".into(), 1));
            assert_eq!(said("stop v6"), ("stop v6 in 2\n".into(), 1));
            assert_eq!(said("stats v3"), ("stats v3 in 3\n".into(), 1));
            assert_eq!(said("help"), ("help of 0\n".into(), 1));
            assert_eq!(said("nonsense"), ("nonsense of 0\n".into(), 1));
            assert_eq!(said("stop v6 on 1"), ("cell 1 does not have that VM\n".into(), 1));
            assert_eq!(said("stop v6 on 4").0, "no cell `4`: there are 0, 1, 2, 3");
        }
    }

    #[test]
    fn a_vm_that_lives_elsewhere_is_found_and_remembered() {
        let mut cluster = Cluster::new();
        cluster.cells[1].0.remove(&5);
        cluster.cells[3].0.insert(5);
        assert_eq!(cluster.type_in("stop v5", true), "stop v5 in 3\n");
        assert_eq!(cluster.asked, 4);
        assert_eq!(cluster.type_in("stats v5", false), "stats v5 in 3\n");
        assert_eq!((cluster.asked, cluster.desk.place(VmId(5))), (1, Some(CellId(3))));
    }

    #[test]
    fn a_vm_starts_where_it_is_told_to_unless_it_runs_or_may_not() {
        let mut cluster = Cluster::new();
        assert_eq!(cluster.type_in("start v1 on 3", false), "start v1 in 3\n");
        assert!(cluster.cells[3].0.contains(&1) && !cluster.cells[1].0.contains(&1));
        assert_eq!(cluster.type_in("stop v1", false), "stop v1 in 3\n");
        assert_eq!(cluster.type_in("start v1 on 2", false), "v1 runs\n");
        assert_eq!(cluster.type_in("start v1 on 3", false), "start v1 in 3\n");
        assert_eq!(cluster.type_in("start v2 on 2", false), "start v2 in 2\n");
        assert_eq!(
            cluster.type_in("start v9 on 3", false),
            "VM `v9` may not be in cell 3: its configuration names 1, 2"
        );
        // It is not where it is thought to be, and runs there.
        cluster.cells[1].0.remove(&5);
        cluster.cells[2].0.insert(5);
        cluster.cells[2].1.insert(5);
        assert_eq!(cluster.type_in("start v5 on 3", true), "v5 runs\n");
        // It is to start where it is thought to be, and is not.
        cluster.cells[2].0.insert(8);
        cluster.cells[0].0.remove(&8);
        assert_eq!(cluster.type_in("start v8 on 0", false), "start v8 in 0\n");
        assert!(cluster.cells[0].0.contains(&8) && !cluster.cells[2].0.contains(&8));
        // No cell has it: it starts all the same.
        cluster.cells[3].0.remove(&7);
        assert_eq!(cluster.type_in("start v7 on 1", false), "start v7 in 1\n");
    }

    #[test]
    fn who_dies_or_is_silent_holds_nobody_up() {
        let mut cluster = Cluster::new();
        cluster.silent.insert(2);
        let all = cluster.type_in("mem", false);
        assert_eq!(
            all,
            "cell 0:\nmem of 0\ncell 1:\nmem of 1\ncell 2:\nit does not answer\ncell 3:\nmem of 3\n"
        );
        assert_eq!(cluster.type_in("stop v2", false), "cell 2: it does not answer\n");
        // It dies with a question open.
        let sent = cluster.desk.ask("stop v2", 0).unwrap();
        assert_eq!(sent.len(), 1);
        // The others might have the VM.
        let asked = cluster.desk.lost(CellId(2));
        assert_eq!(asked.len(), 3);
        for (cell, order) in asked {
            let (id, result, text) = cluster.obey(cell, &order);
            assert_eq!(cluster.desk.answered(cell, id, result, &text, false), []);
        }
        let lost = "VM `v2` is in no cell: it was lost with the one it was in\n";
        assert_eq!(cluster.desk.answer().unwrap(), lost);
        assert_eq!(cluster.type_in("mem", false).matches("cell").count(), 3);
        assert_eq!(cluster.type_in("stop v2", false), lost);
        assert_eq!(cluster.type_in("start v2", false), "start v2 in 0\n");
        // Of its permitted cells only 1 lives.
        cluster.cells[1].0.remove(&9);
        assert_eq!(cluster.type_in("start v9", false), "start v9 in 1\n");
        cluster.desk.lost(CellId(1));
        assert_eq!(cluster.type_in("start v9", false), "VM `v9` may be in no cell that lives\n");
    }

    #[test]
    fn a_vcpu_is_asked_of_its_vms_cell() {
        let mut cluster = Cluster::new();
        assert_eq!(cluster.type_in("stats v6.1", false), "stats v6.1 in 2\n");
    }
}
