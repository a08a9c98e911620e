//! Where the guest stands when emitted code is stopped.

use super::cache::{BlockId, ExitId};
use super::form::{Form, form};
use crate::emulate::branch;
use crate::isa::{Insn, Op};

/// What to do about a place in emitted code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The guest is about to execute the instruction at its PC.
    Plain,
    /// Likewise, but scratch registers have been made from what the VCPU page said: whoever has changed that begins the
    /// instruction anew.
    Posting,
    /// As [`Kind::Plain`], but for that some of what the instruction writes (and does not read) is written
    /// already: it is to be executed before anyone looks at the registers.
    Begun,
    /// The guest is about to execute the branch at its PC; if something is executed, then the branch
    /// and its delay slot.
    WithSlot,
    /// Likewise, but for that the branch's link is written already: both are to be executed before
    /// anyone looks at the registers.
    BegunWithSlot,
    /// The delay slot of the branch at its PC is done, the branch is not: the guest goes on
    /// [`after_slot`].
    SlotDone,
    /// The guest is about to execute the instruction at its PC, the target of an exit.
    Link,
    /// The store-conditional at its PC is done, and its result, for a register that is kept in the VCPU page, in `$k1`: it must
    /// neither be executed again nor be lost.
    Stored,
}

/// One entry of a block's side table. (There is one for two words of code: it is small.)
#[derive(Clone, Copy, Debug)]
#[repr(align(4))]
pub struct Point {
    /// The first word that it is about, from the block's start.
    pub(super) word: u16,
    /// The guest's instruction, from the block's start, or for [`Kind::Link`] the number of the exit; and [`CLEAN`].
    insn: u8,
    pub(super) kind: Kind,
}

/// Nothing is in scratch registers but the main constant.
const CLEAN: u8 = 0x80;

impl Point {
    /// Of an empty block.
    pub(super) const NONE: Self = Self::new(0, 0, Kind::Plain);

    pub(super) const fn new(word: u16, insn: u8, kind: Kind) -> Self {
        Self { word, insn, kind }
    }

    /// With scratch registers as they are between blocks.
    pub(super) const fn clean(self) -> Self {
        Self { insn: self.insn | CLEAN, ..self }
    }

    /// The guest's instruction, or the number of the exit.
    pub(super) const fn insn(self) -> u8 {
        self.insn & !CLEAN
    }

    /// Whether emitted code can be entered here with scratch registers as they are between blocks.
    pub(super) const fn is_clean(self) -> bool {
        self.insn & CLEAN != 0 && matches!(self.kind, Kind::Plain | Kind::WithSlot)
    }
}

/// Where the guest stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// Its PC.
    pub pc: u64,
    /// What that means.
    pub kind: Kind,
    /// If the word there is a `break` that can be chained, this is its exit.
    pub exit: Option<ExitId>,
    /// The block.
    pub block: BlockId,
    /// The word, from the block's start …
    pub(super) word: u16,
    /// … and the point it belongs to, from the block's first.
    pub(super) point: u16,
}

/// Where to go on after the instruction of a stand has been interpreted and control went to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// At this address, with `$k0` and `$k1` as they were.
    AsItWas(u64),
    /// At this address, with the main constant in `$k1`.
    Clean(u64),
}

/// Where control goes from the branch `insn` at `pc` whose slot is done ([`Kind::SlotDone`]); `gpr` are the
/// guest's registers. `None` if it is no branch that is ever emitted so.
#[must_use]
pub fn after_slot(insn: Insn, pc: u64, gpr: &[u64; 32]) -> Option<u64> {
    let a = gpr[insn.a.index() % 32];
    let b = gpr[insn.b.index() % 32];
    let taken = match form(insn) {
        Form::Jump { .. } if insn.op == Op::B => true,
        Form::Jump { .. } => return Some(branch::jump_target(insn, pc)),
        Form::JumpRegister => return Some(a),
        Form::Branch { .. } => match insn.op {
            Op::Beq => a == b,
            Op::Bne => a != b,
            Op::Blez => a as i64 <= 0,
            Op::Bgtz => a as i64 > 0,
            Op::Bltz => (a as i64) < 0,
            Op::Bgez => a as i64 >= 0,
            _ => return None,
        },
        _ => return None,
    };
    Some(if taken { branch::target(insn, pc) } else { pc.wrapping_add(8) })
}
