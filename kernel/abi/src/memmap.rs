//! The word of a machine page in its cell's memmap: its owner, and while it has none its place in the list of free
//! pages.
//!
//! | bits 63–56 | 55–0 |
//! |---|---|
//! | 1 free | previous and next free page, 28 bits each; all ones: none |
//! | 2 monitor | 0 |
//! | 3 VM | 0 (8 bits), VM (16), page of the VM (32) |
//! | 4 lent, 5 quarantined | 0 (16 bits), cell (8), number of the loan (32) |
//!
//! Any other word is damage, and decodes to nothing. Words are in the machine's own byte order. Whoever looks at a
//! machine from outside finds them by the [directory](crate::directory) of the cell.

use crate::{CellId, VmId};

/// Who owns a machine page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    Free,
    /// The monitor: its image, its heap, its record of the pages.
    Monitor,
    /// A VM.
    Vm {
        /// Which.
        vm: VmId,
        /// The page's number in the VM's memory.
        page: u32,
    },
    /// Another cell has the use of it.
    Lent {
        /// Which.
        to: CellId,
        /// The loan's number.
        loan: u32,
    },
    /// Another cell had the use of it when it died, and one of its CPUs may still reach it.
    Quarantined {
        /// Which.
        from: CellId,
        /// The loan's number.
        loan: u32,
    },
}

/// The end of a list of free pages.
pub const NONE: u32 = (1 << LINK) - 1;

const LINK: u32 = 28;
const TAG: u32 = 56;
const FREE: u64 = 1;
const MONITOR: u64 = 2;
const VM: u64 = 3;
const LENT: u64 = 4;
const QUARANTINED: u64 = 5;

/// A page's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Word(pub u64);

impl Word {
    /// A page of the monitor's.
    pub const MONITOR: Self = Self(MONITOR << TAG);

    /// A free page between `previous` and `next` in its list.
    #[inline]
    #[must_use]
    pub const fn free(previous: u32, next: u32) -> Self {
        Self(FREE << TAG | (previous as u64) << LINK | next as u64)
    }

    /// A page that is somebody's. (One that is nobody's has neighbours: [`Word::free`].)
    #[inline]
    #[must_use]
    pub fn owned(owner: Owner) -> Self {
        let loan = |tag, cell: CellId, loan: u32| {
            Self(tag << TAG | u64::from(cell.0) << 32 | u64::from(loan))
        };
        match owner {
            Owner::Free => Self::free(NONE, NONE),
            Owner::Monitor => Self::MONITOR,
            Owner::Vm { vm, page } => Self(VM << TAG | u64::from(vm.0) << 32 | u64::from(page)),
            Owner::Lent { to, loan: number } => loan(LENT, to, number),
            Owner::Quarantined { from, loan: number } => loan(QUARANTINED, from, number),
        }
    }

    /// Whose page it is; `None`: no such word is ever written.
    #[inline]
    #[must_use]
    pub const fn owner(self) -> Option<Owner> {
        let value = self.0 & ((1 << TAG) - 1);
        let (high, low) = (value >> 32, value as u32);
        Some(match self.0 >> TAG {
            FREE => Owner::Free,
            MONITOR if value == 0 => Owner::Monitor,
            VM if high <= u16::MAX as u64 => Owner::Vm { vm: VmId(high as u16), page: low },
            LENT if high <= u8::MAX as u64 => Owner::Lent { to: CellId(high as u8), loan: low },
            QUARANTINED if high <= u8::MAX as u64 => {
                Owner::Quarantined { from: CellId(high as u8), loan: low }
            }
            _ => return None,
        })
    }

    /// A free page's neighbours; `None`: it is not free.
    #[inline]
    #[must_use]
    pub const fn neighbours(self) -> Option<(u32, u32)> {
        let mask = NONE as u64;
        match self.0 >> TAG {
            FREE => Some(((self.0 >> LINK & mask) as u32, (self.0 & mask) as u32)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_owner_comes_back_and_other_words_are_damage() {
        let (vm, page, loan) = (VmId(0xfedc), 0xffff_fffe, 0x8000_0001);
        for owner in [
            Owner::Free,
            Owner::Monitor,
            Owner::Vm { vm, page },
            Owner::Lent { to: CellId(7), loan },
            Owner::Quarantined { from: CellId(255), loan },
        ] {
            let word = Word::owned(owner);
            assert_eq!(word.owner(), Some(owner));
            assert_eq!(word.neighbours().is_some(), owner == Owner::Free);
        }
        assert_eq!(Word::free(5, NONE).neighbours(), Some((5, NONE)));
        for damage in
            [0, 6 << TAG, u64::MAX, MONITOR << TAG | 1, VM << TAG | 1 << 48, LENT << TAG | 1 << 40]
        {
            assert_eq!(Word(damage).owner(), None, "{damage:#x}");
        }
    }
}
