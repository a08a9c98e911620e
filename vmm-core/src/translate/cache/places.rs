//! Where a guest stands in a block, and where it goes on there.

use super::{Block, BlockId, CodeCache, ExitId, GRANULE, STANDS};
use crate::translate::stand::{Kind, Point, Resume, Stand};

/// What has been found of an address of the code; it holds as long as no block is dropped.
#[derive(Clone, Copy)]
pub(super) struct Known {
    address: u64,
    dropped: u64,
    stand: Option<Stand>,
}

impl Known {
    /// Of no address.
    pub const NOTHING: Self = Self { address: 1, dropped: 0, stand: None };
}

impl CodeCache {
    /// Where the guest stands when the word at `address` is about to be executed, or has caused an
    /// exception (or its delay slot has); `None` if no block is there.
    #[must_use]
    pub fn stand(&self, address: u64) -> Option<Stand> {
        let known = &self.stands[(address >> 2) as usize % STANDS];
        let was = known.get();
        if was.address == address && was.dropped == self.dropped {
            return was.stand;
        }
        let stand = self.find_stand(address);
        // (Where no block is there may be one when the next is made.)
        if stand.is_some() {
            known.set(Known { address, dropped: self.dropped, stand });
        }
        stand
    }

    #[inline(never)]
    fn find_stand(&self, address: u64) -> Option<Stand> {
        let offset = address.wrapping_sub(self.layout.code);
        let index = usize::try_from(offset / 4).ok()?;
        let part = index / self.share.words;
        let first = part * self.share.blocks;
        let blocks = self.blocks.get(first..first + self.parts.get(part)?.blocks)?;
        let granule = index % self.share.words / GRANULE;
        let granules = self.share.words.div_ceil(GRANULE);
        let mut at = usize::from(*self.granules.get(part * granules + granule)?);
        while blocks.get(at + 1).is_some_and(|block| block.start as usize <= index) {
            at += 1;
        }
        let block = blocks.get(at)?;
        let word = index.checked_sub(block.start as usize)?;
        if !block.alive || word >= usize::from(block.words) || !offset.is_multiple_of(4) {
            return None;
        }
        let points = self.points(block);
        let point =
            points.partition_point(|point| usize::from(point.word) <= word).checked_sub(1)?;
        let (stands, word) = (points[point], word as u16);
        let first_exit = block.exits;
        let exits = &self.ways[first_exit as usize..][..usize::from(block.exit_count)];
        let exit = exits.iter().position(|way| way.exit.word == word);
        let pc = match stands.kind {
            Kind::Link => exits.get(usize::from(stands.insn()))?.exit.target,
            _ => block.key.pc.wrapping_add(4 * u64::from(stands.insn())),
        };
        Some(Stand {
            pc,
            kind: stands.kind,
            exit: exit.map(|n| ExitId(first_exit + n as u32)),
            block: BlockId((first + at) as u32),
            word,
            point: point as u16,
        })
    }

    /// Where to go on when the one instruction of a stand that is [`Kind::Plain`] or [`Kind::Begun`] has been
    /// interpreted, because of an exception there, and control went to the next; `None` if that has
    /// no place in the block, or the block has gone meanwhile.
    #[must_use]
    pub fn resume(&self, stand: &Stand) -> Option<Resume> {
        let block = self.living(stand)?;
        if !matches!(stand.kind, Kind::Plain | Kind::Begun) {
            return None;
        }
        let now = self.points(block)[usize::from(stand.point)].insn();
        if let Some(next) = self.next(block, stand)
            && next.word == stand.word + 1
            && next.insn() > now
        {
            return Some(Resume::AsItWas(self.place(block, next)));
        }
        self.behind(block, now).map(|point| Resume::Clean(self.place(block, point)))
    }

    /// The point behind a stand's, if that is not behind the block's end.
    fn next(&self, block: &Block, stand: &Stand) -> Option<&Point> {
        self.inside(block).get(usize::from(stand.point) + 1)
    }

    /// The first point at which emitted code can be entered behind instruction `insn` of a block.
    fn behind(&self, block: &Block, insn: u8) -> Option<&Point> {
        let points = self.inside(block);
        let from = points.partition_point(|point| point.insn() <= insn);
        points[from..]
            .iter()
            .take_while(|point| point.insn() == insn + 1)
            .find(|point| point.is_clean())
    }

    /// How many instructions are handed to the interpreter at a stand that is [`Kind::Plain`], of the word there.
    #[must_use]
    pub fn stretch(&self, stand: &Stand) -> u64 {
        let block = &self.blocks[stand.block.0 as usize];
        let Some(now) = self.inside(block).get(usize::from(stand.point)) else { return 1 };
        let end = self.next(block, stand).map_or(block.insns, |next| next.insn());
        u64::from(end.saturating_sub(now.insn())).max(1)
    }

    /// Where to go on when the instructions of a stretch have been interpreted; `None` if that is not in the block.
    #[must_use]
    pub fn behind_stretch(&self, stand: &Stand) -> Option<u64> {
        let block = self.living(stand)?;
        let next = if stand.point >= block.aside {
            self.behind(block, self.points(block)[usize::from(stand.point)].insn())
        } else {
            self.next(block, stand).filter(|point| point.is_clean())
        };
        next.map(|next| self.place(block, next))
    }

    /// Where the jump to a register begins whose look-up has failed at a stand: all that is needed there are the guest's
    /// registers.
    #[must_use]
    pub fn look_up_again(&self, stand: &Stand) -> Option<u64> {
        let block = &self.blocks[stand.block.0 as usize];
        if stand.point < block.aside {
            return None;
        }
        let aside = self.points(block)[usize::from(stand.point)];
        let jump = self.inside(block).last()?;
        let is_jump = matches!(jump.kind, Kind::WithSlot | Kind::BegunWithSlot | Kind::SlotDone);
        let same = (aside.insn(), aside.kind) == (jump.insn(), jump.kind);
        (is_jump && same).then(|| self.place(block, jump))
    }

    /// The block of a stand, if it is still there.
    fn living(&self, stand: &Stand) -> Option<&Block> {
        Some(&self.blocks[stand.block.0 as usize]).filter(|block| block.alive)
    }

    fn points(&self, block: &Block) -> &[Point] {
        &self.points[block.points as usize..][..usize::from(block.point_count)]
    }

    /// Points of a block that are not behind its end, where only branches lead.
    fn inside(&self, block: &Block) -> &[Point] {
        &self.points[block.points as usize..][..usize::from(block.aside)]
    }

    /// Where the word of a block's point is.
    fn place(&self, block: &Block, point: &Point) -> u64 {
        self.address(block.start as usize + usize::from(point.word))
    }
}
