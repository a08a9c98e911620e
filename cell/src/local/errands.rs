//! What the cell has to say to others about VMs that are in several cells: kept until there is room for it.

use super::talking::Talk;
use super::{LocalCell, Machine};
use crate::loan::Payload;
use crate::talk::{CellSet, Message, Refusal, Reply, Request, Sent, Vcpu};
use crate::visit::{Ask, Told, Whom};
use crate::vm::{Seat, VcpuId};
use abi::ids::MAX_CPUS;
use abi::{CellId, CpuId, VmId};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The tokens of calls about VMs in several cells begin here.
pub(super) const TOKENS: u32 = 1 << 30;
/// Those of CPUs that wait for the answer begin here.
pub(super) const CPU_TOKENS: u32 = 1 << 29;

/// Something to be said.
#[derive(Debug)]
pub(super) enum Errand {
    /// A VCPU's life has begun, in that cell.
    Begin(Vcpu, CellId),
    /// The life of this cell's VCPU has ended.
    End(Vcpu),
    /// A VCPU that stands still is offered to the cell that it is to leave for.
    Offer(VcpuId),
    /// A message to a VCPU, wherever it is.
    Send(Vcpu, Message),
    /// A call about a VM.
    Ask(CellId, Whom, Ask),
}

/// A call that was made.
#[derive(Debug)]
struct Open {
    token: u32,
    whom: Whom,
    ask: Ask,
}

/// What is to be said, what was asked, and what CPUs wait for.
#[derive(Debug, Default)]
pub(super) struct Errands {
    queue: VecDeque<Errand>,
    open: Vec<Open>,
    last: u32,
    /// The answers for which CPUs wait; `Some(None)`: there will be none.
    answers: [Option<Option<Payload>>; MAX_CPUS],
}

/// Which cell has no room for more just now.
enum Blocked {
    Cell(CellId),
    Messages,
}

impl Errands {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl<M: Machine> LocalCell<M> {
    /// Says something as soon as it can be said.
    pub(super) fn errand(&mut self, errand: Errand) {
        if self.shared {
            self.errands.queue.push_back(errand);
        }
    }

    /// Asks each of `cells` something about VM `id` in its present life here, if it has one.
    pub(super) fn ask_about(&mut self, id: VmId, cells: CellSet, ask: Ask) {
        let Some(life) = self.vm(id).body().map(|body| body.life) else { return };
        for cell in cells {
            self.errand(Errand::Ask(cell, Whom { vm: id, life }, ask));
        }
    }

    /// Says what there is to say now, and not only when the cell next talks.
    pub(super) fn say_what_waits(&mut self) {
        if !self.errands.is_empty() || self.probes.is_busy() {
            self.talk(CellSet::NONE);
        }
    }

    /// Says what can be said; the rest stays, in order.
    pub(super) fn run_errands(&mut self, talk: &mut Talk) {
        let (mut full, mut messages) = (CellSet::NONE, false);
        for _ in 0..self.errands.queue.len() {
            let Some(errand) = self.errands.queue.pop_front() else { return };
            let waits = match &errand {
                Errand::Begin(..) | Errand::End(_) => false,
                Errand::Send(..) => messages,
                Errand::Ask(to, ..) => full.has(*to),
                Errand::Offer(who) => self.leaves_for(*who).is_some_and(|to| full.has(to)),
            };
            let blocked = if waits { None } else { self.run_errand(talk, &errand) };
            match blocked {
                Some(Blocked::Cell(cell)) => full = full.with(cell),
                Some(Blocked::Messages) => messages = true,
                None => {}
            }
            if waits || blocked.is_some() {
                self.errands.queue.push_back(errand);
            }
        }
    }

    /// The cell to which a VCPU is about to leave.
    fn leaves_for(&mut self, who: VcpuId) -> Option<CellId> {
        match self.slot(who)?.seat {
            Seat::Leaving { to, .. } => Some(to),
            _ => None,
        }
    }

    fn run_errand(&mut self, talk: &mut Talk, errand: &Errand) -> Option<Blocked> {
        let exchange = &mut talk.exchange;
        match *errand {
            Errand::Begin(vcpu, cell) => exchange.begin(vcpu, cell),
            Errand::End(vcpu) => {
                let ended = exchange.end(vcpu);
                debug_assert_eq!(ended, Ok(()), "a VCPU that is here");
            }
            Errand::Offer(who) => {
                let name = self.talk_name(who)?;
                let body = self.vms[usize::from(who.vm.0)].body()?;
                let (to, parcel) = body.pack(who.index)?;
                let frozen = self.out.machine.parcel(parcel);
                match exchange.offer(name, to, frozen) {
                    Ok(()) => {}
                    Err(Refusal::Full) => return Some(Blocked::Cell(to)),
                    Err(_) => self.stays(who, None),
                }
            }
            Errand::Send(vcpu, message) => match exchange.send(vcpu, message, 0) {
                Ok(Sent::Execute) => self.execute_message(vcpu, message),
                Err(Refusal::Full) => return Some(Blocked::Messages),
                // To nobody: that VCPU is no more.
                Ok(Sent::Waits) | Err(_) => {}
            },
            Errand::Ask(to, whom, ask) => {
                let token = TOKENS | self.errands.last;
                match exchange.call(to, &Request::Visit(ask.encode(whom)), token) {
                    Ok(()) => {
                        self.errands.last = (self.errands.last + 1) % CPU_TOKENS;
                        self.errands.open.push(Open { token, whom, ask });
                    }
                    Err(Refusal::Full) => return Some(Blocked::Cell(to)),
                    // It has died, and everybody knows.
                    Err(_) => {}
                }
            }
        }
        None
    }

    /// A call about a VM in several cells has ended; no reply: its callee has died.
    pub(super) fn returned_about_visit(&mut self, token: u32, from: CellId, reply: Option<Reply>) {
        let payload = match reply {
            Some(Reply::Visit(payload)) => Some(payload),
            _ => None,
        };
        if token & TOKENS == 0 {
            if let Some(answer) = self.errands.answers.get_mut((token & !CPU_TOKENS) as usize) {
                *answer = Some(payload);
            }
            return;
        }
        let open = &mut self.errands.open;
        if let Some(at) = open.iter().position(|open| open.token == token) {
            let Open { whom, ask, .. } = open.remove(at);
            if let Some(payload) = payload {
                self.visit_answered(from, whom, ask, Told::decode(&payload));
            }
        }
    }

    /// Asks another cell on behalf of a CPU, which waits for [`Self::answer_for`].
    ///
    /// # Errors
    /// [`Refusal::Full`]: to be tried again, when the cell has talked. Else the other cell does not live.
    pub fn ask_for(
        &mut self,
        cpu: CpuId,
        to: CellId,
        whom: Whom,
        ask: &Ask,
    ) -> Result<(), Refusal> {
        let talk = self.talk.as_mut().ok_or(Refusal::NotLive)?;
        let token = CPU_TOKENS | u32::from(cpu.0);
        talk.exchange.call(to, &Request::Visit(ask.encode(whom)), token)?;
        self.errands.answers[usize::from(cpu.0)] = None;
        self.talk(CellSet::NONE);
        Ok(())
    }

    /// What a CPU has asked was answered: so; or will never be (`Some(None)`).
    pub fn answer_for(&mut self, cpu: CpuId) -> Option<Option<Told>> {
        let answer = self.errands.answers[usize::from(cpu.0)].take()?;
        Some(answer.map(|payload| Told::decode(&payload)))
    }
}
