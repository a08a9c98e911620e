//! What the cell lends and borrows: [`crate::loan`], driven by commands, by VMs that are to be spread over several
//! cells, and by what other cells ask and answer.
//!
//! A VM whose pages are to come from other cells as well starts when those have lent what is missing, or
//! have refused: then with what there is, or not at all. Such loans go back when nothing uses them any more. Those
//! that an operator has made stay until an operator ends them.

use super::{LocalCell, Machine};
use crate::loan::{LoanId, Loans, Outcome, Payload, Refusal, Reply, Request};
use crate::memmap::Run;
use crate::placement::Shares;
use crate::talk;
use crate::talk::mutant::{Mutant, seeded};
use crate::vm::{State, Then};
use abi::config::Config;
use abi::event::Cause;
use abi::{CellId, Mpa, PAGE_SHIFT, VmId};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The tokens of calls about loans begin here.
pub(super) const TOKENS: u32 = 1 << 31;

/// Who is waiting for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// An operator.
    Operator,
    /// A VM that is to start.
    Start(VmId),
    /// Nobody.
    Nobody,
}

/// A call to another cell.
#[derive(Debug)]
struct Call {
    token: u32,
    to: CellId,
    request: Request,
    waiting: Waiting,
}

/// The cell's loans, and its calls about them.
#[derive(Debug)]
pub(super) struct Lending {
    pub(super) loans: Loans,
    /// Calls that are to be made.
    calls: VecDeque<Call>,
    /// Calls that were made.
    open: Vec<Call>,
    last: u32,
    /// Loans taken for VMs.
    for_vms: Vec<LoanId>,
}

impl Lending {
    /// No loans yet, in a machine of this configuration.
    pub fn new(loans: impl FnOnce(Vec<(CellId, Run)>) -> Loans, config: &Config) -> Self {
        let layout = config.layout();
        let run = |range: core::ops::Range<u64>| Run {
            start: Mpa(range.start),
            pages: ((range.end - range.start) >> PAGE_SHIFT) as u32,
        };
        let memory = |node| [layout.window_of(node), layout.slice_of(node)].map(run);
        let all = layout.node_ids().flat_map(|n| memory(n).map(|run| (layout.cell(n), run)));
        let loans = loans(all.filter(|(_, run)| run.pages != 0).collect());
        let (calls, open) = (VecDeque::new(), Vec::new());
        Self { loans, calls, open, last: 0, for_vms: Vec::new() }
    }

    fn call(&mut self, to: CellId, request: Request, waiting: Waiting) {
        self.last = self.last.wrapping_add(1);
        self.calls.push_back(Call { token: TOKENS | self.last, to, request, waiting });
    }

    /// Whether VM `id` waits for loans.
    fn waits(&self, id: VmId) -> bool {
        self.calls.iter().chain(&self.open).any(|call| call.waiting == Waiting::Start(id))
    }

    /// Whether nothing is to be called: asked by the model check.
    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.calls.is_empty() && self.open.is_empty()
    }

    /// Whether any VM waits for loans.
    fn is_awaited(&self) -> bool {
        let starts = |call: &Call| matches!(call.waiting, Waiting::Start(_));
        self.calls.iter().chain(&self.open).any(starts)
    }
}

impl<M: Machine> LocalCell<M> {
    /// The next call about a loan that another cell is to be asked, by `ask`: `(cell, request, token)`.
    pub(super) fn call_about_loans(
        &mut self,
        mut ask: impl FnMut(CellId, &talk::Request, u32) -> Result<(), talk::Refusal>,
    ) {
        while let Some(call) = self.lending.calls.pop_front() {
            match ask(call.to, &talk::Request::Loan(call.request.encode()), call.token) {
                Ok(()) => self.lending.open.push(call),
                Err(talk::Refusal::Full) => return self.lending.calls.push_front(call),
                Err(_) => {
                    self.lending.loans.not_asked(call.to, &call.request);
                    self.loan_answered(call, None);
                }
            }
        }
    }

    /// Another cell asks something about a loan: what to answer.
    pub(super) fn asked_about_loan(&mut self, from: CellId, payload: &Payload) -> Payload {
        let reply = match Request::decode(payload) {
            Some(request) => self.lending.loans.asked(from, &request),
            None => Reply::Refused(Refusal::Garbled),
        };
        reply.encode()
    }

    /// Another cell has answered the call `token`; `None`: it has died.
    pub(super) fn returned_about_loan(&mut self, token: u32, reply: Option<&Payload>) {
        let open = &mut self.lending.open;
        if let Some(at) = open.iter().position(|call| call.token == token) {
            let call = open.remove(at);
            self.loan_answered(call, reply);
        }
    }

    fn loan_answered(&mut self, call: Call, reply: Option<&Payload>) {
        let reply = reply.map(Reply::decode);
        let to = call.to;
        match self.lending.loans.answered(to, &call.request, reply.as_ref()) {
            Outcome::Lent(loan, pages) => {
                self.say(&format!("{pages} pages lent to cell {to}: {loan}\n"))
            }
            Outcome::Borrowed(loan, _) => self.lending.for_vms.push(loan),
            Outcome::Over(loan) if call.waiting == Waiting::Operator => {
                self.say(&format!("{loan} is over\n"))
            }
            Outcome::Over(_) => {}
            Outcome::SendBack(loan, _) => {
                self.lending.call(to, Request::Return { loan }, Waiting::Nobody);
            }
            Outcome::Refused(why) => self.say(&format!("cell {to} refuses: {why}\n")),
            Outcome::Died => self.say(&format!("cell {to} can't be asked: it does not live\n")),
        }
        if let Waiting::Start(id) = call.waiting
            && !self.lending.waits(id)
        {
            self.start_with_loans(id);
        }
    }

    /// Has other cells asked for what VM `id` lacks of their memory; whether there was anything to ask.
    pub(super) fn borrow_for(&mut self, id: VmId, missing: &Shares) -> bool {
        for (cell, &pages) in (0..).map(CellId).zip(missing) {
            if cell != self.out.cell && pages != 0 {
                self.lending.call(cell, Request::Lend { pages }, Waiting::Start(id));
            }
        }
        let waits = self.lending.waits(id);
        // Not by itself, but it has a future.
        self.vm(id).due = waits.then_some(u64::MAX);
        waits
    }

    /// All cells that were to lend memory to VM `id` have answered.
    fn start_with_loans(&mut self, id: VmId) {
        if self.vm(id).due.take().is_some()
            && let Err(refused) = self.start_with(id, true)
        {
            self.not_started(id, refused);
        }
        self.return_unused();
    }

    /// Gives back what was borrowed for VMs and is not used any more. While a VM waits for more, nobody knows what
    /// of that it will use: when it starts this is called again.
    pub(super) fn return_unused(&mut self) {
        if self.lending.is_awaited() {
            return;
        }
        let Lending { loans, for_vms, .. } = &mut self.lending;
        let mut calls = Vec::new();
        for_vms.retain(|loan| match loans.give_back(*loan) {
            Ok(request) => {
                calls.push((loan.lender, request));
                false
            }
            Err(why) => why == Refusal::InUse,
        });
        for (to, request) in calls {
            self.lending.call(to, request, Waiting::Nobody);
        }
    }

    /// Lends pages to another cell; what to answer the operator.
    pub(super) fn lend(&mut self, to: CellId, pages: u32) -> Result<String, String> {
        self.other(to, "lend")?;
        let request = self.lending.loans.lend(to, pages).map_err(|why| format!("lend: {why}"))?;
        self.lending.call(to, request, Waiting::Operator);
        Ok(String::new())
    }

    /// Gives back what `lender` has lent and is not used; what to answer the operator.
    pub(super) fn give_back(&mut self, lender: CellId) -> Result<String, String> {
        self.other(lender, "return")?;
        let loans = self.frames.look(|map| {
            let of = map.borrowed().map(|(loan, _)| loan).filter(|loan| loan.lender == lender);
            of.collect::<Vec<_>>()
        });
        if loans.is_empty() {
            return Err(format!("return: nothing is borrowed from cell {lender}"));
        }
        let mut text = String::new();
        for loan in loans {
            match self.lending.loans.give_back(loan) {
                Ok(request) => self.lending.call(lender, request, Waiting::Operator),
                Err(why) => text.push_str(&format!("{loan} is kept: {why}\n")),
            }
        }
        Ok(text)
    }

    /// Wants back what `borrower` has; what to answer the operator.
    pub(super) fn recall(&mut self, borrower: CellId) -> Result<String, String> {
        self.other(borrower, "recall")?;
        let lent = self.lending.loans.lent().filter(|(to, ..)| *to == borrower);
        let loans: Vec<LoanId> = lent.map(|(_, loan, _)| loan).collect();
        let recalled = loans.iter().filter_map(|loan| self.lending.loans.recall(*loan).ok());
        let calls: Vec<_> = recalled.collect();
        if calls.is_empty() {
            return Err(format!("recall: cell {borrower} has no loan of this cell's"));
        }
        for (to, request) in calls {
            self.lending.call(to, request, Waiting::Operator);
        }
        Ok(String::new())
    }

    /// Whether `cell` can be spoken to by a command.
    pub(super) fn other(&self, cell: CellId, command: &str) -> Result<(), String> {
        match &self.talk {
            None => Err(format!("{command}: there is no other cell")),
            Some(_) if cell == self.out.cell => Err(format!("{command}: this is cell {cell}")),
            Some(_) => Ok(()),
        }
    }

    /// `cell` has died: what it had borrowed is quarantined, and VMs that have pages of it end.
    pub(super) fn lender_died(&mut self, cell: CellId) {
        self.lending.loans.died(cell);
        self.held.died(cell);
        self.lending.for_vms.retain(|loan| loan.lender != cell);
        let mut one_more = seeded(Mutant::OneTooMany) && self.live.lowest() == Some(self.out.cell);
        for id in self.ids() {
            let State::Living(life) = &self.vm(id).state else { continue };
            let depends = life.pmap.depends_on(cell) && !seeded(Mutant::LenderForgotten);
            let another = one_more && !self.dependencies(id).iter().any(|on| on.cell == cell);
            one_more &= !another;
            if depends || another {
                let why = format!("cell {cell}, which has died, held pages of it");
                self.end(id, Cause::CellLost, why, Then::Policy);
            }
        }
    }
}
