//! What accesses have been seen to be.

use super::layout::Class;
use alloc::vec::Vec;

/// Places to note it; a power of two.
const SITES: usize = 8192;

/// What is known of the accesses of one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Nothing,
    /// They are of this class.
    One(Class),
    /// They are of several, or of one that has no window.
    Mixed,
}

#[derive(Clone, Copy)]
struct Site {
    pc: u64,
    seen: Seen,
    /// The last block that was made before that was known.
    since: u32,
}

/// All that is known.
pub struct Sites(Vec<Site>);

impl Sites {
    /// Nothing; `None` if there is no memory for it.
    pub fn new() -> Option<Self> {
        let mut all = Vec::new();
        all.try_reserve_exact(SITES).ok()?;
        all.resize(SITES, Site { pc: 0, seen: Seen::Nothing, since: 0 });
        Some(Self(all))
    }

    const fn place(pc: u64) -> usize {
        (pc >> 2) as usize % SITES
    }

    /// What is known of the instruction at `pc`.
    #[inline]
    pub fn seen(&self, pc: u64) -> Seen {
        let site = &self.0[Self::place(pc)];
        if site.pc == pc { site.seen } else { Seen::Nothing }
    }

    /// An access of the instruction at `pc` is one to guest address `va`; `made` blocks have been made. The last one that was made
    /// before what is known now was.
    pub fn note(&mut self, pc: u64, va: u64, made: u32) -> u32 {
        let old = self.seen(pc);
        let new = match (old, Class::of(va)) {
            (Seen::Mixed, _) | (_, None) => Seen::Mixed,
            (Seen::Nothing, Some(class)) => Seen::One(class),
            (Seen::One(one), Some(class)) if one == class => old,
            _ => Seen::Mixed,
        };
        let site = &mut self.0[Self::place(pc)];
        if new != old {
            *site = Site { pc, seen: new, since: made };
        }
        site.since
    }
}
