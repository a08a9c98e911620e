//! The stress that sends messages to VCPUs wherever they are, and checks that each is executed once and in order.
//!
//! Each cell numbers its messages to each VCPU. A VCPU takes with it wherever it goes the number of the last message
//! that it has had of each cell: the next must be one more. So a message that is lost, executed twice or overtaken is
//! found where it is executed, and not by those whose protocol it is.

use super::talking::Talk;
use super::{LocalCell, Machine};
use crate::talk::{Message, Refusal, Sent, Undelivered, Vcpu as Name};
use crate::vm::VcpuId;
use abi::CellId;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Messages that are on their way at a time, and that are sent at a time.
const WINDOW: u64 = 16;
/// The sender's number is above the message's.
const NUMBER_BITS: u32 = 56;
/// Of these the lower ones count; above them is the sender's incarnation.
const COUNT_BITS: u32 = 32;
/// The count of a number.
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// The name of these messages for their sender.
pub(super) const TOKEN: u32 = 1;

/// Messages are sent.
#[derive(Debug)]
pub(super) struct Messages {
    /// How many are to be.
    count: u64,
    sent: u64,
    executed: u64,
    /// To VCPUs that had ended.
    failed: u64,
    since: u64,
}

/// What this cell has sent, and what was wrong with what it got.
#[derive(Debug, Default)]
pub(super) struct Probes {
    stress: Option<Box<Messages>>,
    /// The number of the last message to each VCPU, by its number in the machine, and in which life of it.
    last: BTreeMap<u16, (u32, u64)>,
    /// Messages executed here, and those that were not the next.
    had: u64,
    wrong: u64,
}

impl Probes {
    /// Whether there is more to be sent.
    pub fn is_busy(&self) -> bool {
        self.stress.as_ref().is_some_and(|stress| stress.sent < stress.count)
    }
}

impl<M: Machine> LocalCell<M> {
    /// Sends `count` messages to the VCPUs of the VMs that are here, or whose VCPUs visit; what to answer.
    pub(super) fn begin_messages(&mut self, count: u64) -> Result<String, String> {
        if !self.shared {
            return Err("stress: there is no other cell".into());
        }
        if self.probes.stress.is_some() {
            return Err("stress: the last messages are still on their way".into());
        }
        let since = self.out.machine.now();
        let stress = Messages { count, sent: 0, executed: 0, failed: 0, since };
        self.probes.stress = Some(Box::new(stress));
        Ok(format!("sending {count} messages\n"))
    }

    /// The VCPUs whose lives are known here.
    fn targets(&mut self) -> Vec<Name> {
        let mut names = Vec::new();
        for vm in self.ids() {
            let vcpus = self.vm(vm).config.vcpus;
            names.extend((0..vcpus).filter_map(|index| self.talk_name(VcpuId { vm, index })));
        }
        names
    }

    /// Sends some of the messages that are to be sent.
    pub(super) fn send_messages(&mut self, talk: &mut Talk) {
        let Some(mut stress) = self.probes.stress.take() else { return };
        let targets = self.targets();
        // A cell that has booted again begins anew.
        let me = usize::from(self.out.cell.0);
        let first = u64::from(talk.members.live().incarnations[me].0) << COUNT_BITS;
        for _ in 0..WINDOW {
            let open = stress.sent - stress.executed - stress.failed;
            if stress.sent == stress.count || open == WINDOW || targets.is_empty() {
                break;
            }
            let name = targets[self.dice.below(targets.len() as u64) as usize];
            let last = self.probes.last.entry(name.index).or_default();
            if last.0 != name.life {
                *last = (name.life, first);
            }
            let number = last.1 + 1;
            let value = u64::from(self.out.cell.0) << NUMBER_BITS | number;
            match talk.exchange.send(name, Message::Probe(value), TOKEN) {
                Err(Refusal::Full) => break,
                Err(_) => stress.failed += 1,
                Ok(Sent::Waits) => {}
                Ok(Sent::Execute) => {
                    stress.executed += 1;
                    self.execute_message(name, Message::Probe(value));
                }
            }
            stress.sent += 1;
            if let Some(last) = self.probes.last.get_mut(&name.index) {
                last.1 = number;
            }
        }
        self.probes.stress = Some(stress);
        self.end_messages();
    }

    /// A message was executed, or never will be.
    pub(super) fn message_sent(&mut self, result: Result<(), Undelivered>) {
        if let Some(stress) = &mut self.probes.stress {
            match result {
                Ok(()) => stress.executed += 1,
                Err(_) => stress.failed += 1,
            }
        }
        self.end_messages();
    }

    fn end_messages(&mut self) {
        let done = |s: &Messages| s.sent == s.count && s.executed + s.failed == s.count;
        if !self.probes.stress.as_deref().is_some_and(done) {
            return;
        }
        let Some(stress) = self.probes.stress.take() else { return };
        let ns = self.out.machine.now().saturating_sub(stress.since) / stress.count.max(1);
        let Messages { executed, failed, .. } = *stress;
        let Probes { had, wrong, .. } = self.probes;
        self.say(&format!(
            "stress: {executed} messages executed, {failed} to VCPUs that had ended, {ns} ns each; of {had} \
             executed here {wrong} were not the next\n"
        ));
    }

    /// A message of the stress is executed here.
    pub(super) fn had_message(&mut self, who: VcpuId, value: u64) {
        self.probes.had += 1;
        let (from, number) = (value >> NUMBER_BITS, value & ((1 << NUMBER_BITS) - 1));
        let Some(slot) = self.slot(who) else { return };
        let Some(last) = slot.probes.get_mut(from as usize) else { return };
        let before = core::mem::replace(last, number);
        let begins = number & COUNT_MASK == 1 && number >> COUNT_BITS > before >> COUNT_BITS;
        if before.wrapping_add(1) != number && !begins {
            self.probes.wrong += 1;
            let (name, from) = (self.name_of(who), CellId(from as u8));
            self.say(&format!(
                "VCPU {name} was sent message {number} by cell {from} after {before}: WRONG\n"
            ));
        }
    }
}
