//! The code cache: where blocks lie, how they are found, chained and dropped.
//!
//! It is filled from front to back in [`PARTS`] parts; a part that is to be overwritten loses all its
//! blocks first. All tables are of fixed size, with an equal share for each part.

mod crossing;
mod places;

use super::asm::{self, BREAK};
use super::build::build;
use super::draft::{Draft, Exit, MAX_EXITS, MAX_POINTS, MAX_WORDS, NO_BRANCH};
use super::layout::{Class, Layout};
use super::reach::CANDIDATES;
use super::sites::Sites;
use super::source::Source;
use super::stand::Point;
use super::values::Values;
use crate::mem::Page;
use abi::{Gpa, PAGE_SIZE};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;
use crossing::Crossings;
use places::Known;

/// Parts of a cache.
const PARTS: usize = 8;
/// Words for which there is one block's record.
const WORDS_A_BLOCK: usize = 24;
/// Words for which there is one exit's record.
const WORDS_AN_EXIT: usize = 12;
/// Words for which there is one point.
const WORDS_A_POINT: usize = 2;
/// Words for which it is known in which block they begin.
const GRANULE: usize = 64;
/// Addresses of which it is remembered where the guest stands there; a power of two.
const STANDS: usize = 256;
/// Aliases made that tell which class should be the main one, the first time …
const WINDOW: u32 = if cfg!(test) { 8 } else { 512 };
/// … if that many times as many are of one of them.
const CLEARLY: u32 = if cfg!(test) { 2 } else { 4 };
/// No block, no exit.
const NONE: u32 = u32::MAX;
/// The compatibility segments that are mapped.
const CKSSEG: u64 = 0xffff_ffff_c000_0000;

/// Where the code lies, and what follows from it.
pub trait CodeMemory {
    /// Word `index` of the code becomes `word`.
    fn set(&mut self, index: usize, word: u32);
    /// The words from `index` on become these.
    fn set_all(&mut self, index: usize, words: &[u32]) {
        for (n, &word) in words.iter().enumerate() {
            self.set(index + n, word);
        }
    }
    /// Word `index` is written as it is.
    fn rewrite(&mut self, index: usize);
    /// The guest's code at `pc` has no block any more: no entry of the jump table leads there.
    fn gone(&mut self, pc: u64);
}

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Where it begins, aligned.
    pub pc: u64,
    /// The guest-physical page of that.
    pub page: Gpa,
    /// Whatever else tells blocks apart: KX, SX, UX, CU1, FR.
    pub flags: u8,
}

/// A block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId(u32);

/// A way out of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitId(u32);

#[derive(Clone, Copy)]
struct Block {
    key: Key,
    alive: bool,
    /// Which of all the blocks that have been made it is.
    serial: u32,
    insns: u8,
    start: u32,
    words: u16,
    points: u32,
    exits: u32,
    point_count: u16,
    /// The first of its points that is behind its end, where only branches lead.
    aside: u16,
    exit_count: u16,
    /// In its bucket, by key and by page: neighbours.
    by_key: [u32; 2],
    by_page: [u32; 2],
    /// The first exit that is chained to it.
    incoming: u32,
}

#[derive(Clone, Copy)]
struct Way {
    exit: Exit,
    /// The word at its branch when it is not chained.
    branch_word: u32,
    block: u32,
    /// What it is chained to.
    to: u32,
    /// Others chained to the same: neighbours.
    next: u32,
    previous: u32,
}

/// What is used of a part.
#[derive(Clone, Copy, Default)]
struct Used {
    words: usize,
    blocks: usize,
    points: usize,
    exits: usize,
}

/// Which of a block's two pairs of neighbours.
type Neighbours = fn(&mut Block) -> &mut [u32; 2];

/// A VCPU's translated code.
pub struct CodeCache {
    layout: Layout,
    share: Used,
    parts: [Used; PARTS],
    current: usize,
    blocks: Vec<Block>,
    points: Vec<Point>,
    ways: Vec<Way>,
    keys: Vec<u32>,
    pages: Vec<u32>,
    crossings: Crossings,
    sites: Sites,
    /// The block that the first word of each [`GRANULE`] of a part is in, counted from the part's first.
    granules: Vec<u16>,
    stands: Vec<Cell<Known>>,
    draft: Box<Draft>,
    made: u64,
    dropped: u64,
    /// Blocks there are of code in mapped segments.
    mapped: usize,
    /// Aliases made of addresses of each of [`CANDIDATES`] since somebody asked, or since they were [`CodeCache::window`].
    accesses: [u32; 2],
    /// How many of them tell something.
    window: u32,
}

/// Whether an address is in a mapped segment.
pub(crate) const fn is_mapped(va: u64) -> bool {
    va >= CKSSEG || va >> 62 != 2 && va >> 31 != !0 >> 31
}

/// Changes a word that is, or was, a branch. QEMU may have been interrupted behind it, and then keeps its delay slot by
/// itself, with the branch's target in it: writing to the slot too makes it forget that.
fn set_branch(memory: &mut impl CodeMemory, index: usize, word: u32) {
    memory.set(index, word);
    memory.rewrite(index + 1);
}

/// So many values; `None` if there is no memory for them.
fn filled<T: Clone>(value: T, count: usize) -> Option<Vec<T>> {
    let mut all = Vec::new();
    all.try_reserve_exact(count).ok()?;
    all.resize(count, value);
    Some(all)
}

impl CodeCache {
    /// The least number of words that a cache can have.
    pub const MIN_WORDS: usize = PARTS * MAX_WORDS;

    /// An empty cache for code of so many words, which lie where `layout` says; `None` if it says
    /// something impossible, they are too few, or there is no memory for its records. This is all the memory that it ever takes.
    #[must_use]
    pub fn new(layout: Layout, words: usize) -> Option<Self> {
        if words < Self::MIN_WORDS || !layout.is_possible(words) {
            return None;
        }
        let words = words / PARTS;
        let share = Used {
            words,
            blocks: words / WORDS_A_BLOCK,
            points: (words / WORDS_A_POINT).max(MAX_POINTS),
            exits: (words / WORDS_AN_EXIT).max(MAX_EXITS),
        };
        let block = Block {
            key: Key { pc: 0, page: Gpa(0), flags: 0 },
            alive: false,
            serial: 0,
            insns: 0,
            start: 0,
            words: 0,
            points: 0,
            exits: 0,
            point_count: 0,
            aside: 0,
            exit_count: 0,
            by_key: [NONE; 2],
            by_page: [NONE; 2],
            incoming: NONE,
        };
        let exit = Exit { word: 0, branch: NO_BRANCH, target: 0 };
        let way = Way { exit, branch_word: 0, block: NONE, to: NONE, next: NONE, previous: NONE };
        let buckets = (PARTS * share.blocks).next_power_of_two();
        Some(Self {
            layout,
            share,
            parts: [Used::default(); PARTS],
            current: 0,
            blocks: filled(block, PARTS * share.blocks)?,
            points: filled(Point::NONE, PARTS * share.points)?,
            ways: filled(way, PARTS * share.exits)?,
            keys: filled(NONE, buckets)?,
            pages: filled(NONE, buckets)?,
            crossings: Crossings::new()?,
            sites: Sites::new()?,
            granules: filled(0, PARTS * words.div_ceil(GRANULE))?,
            stands: filled(Cell::new(Known::NOTHING), STANDS)?,
            draft: Box::new(Draft::new()),
            made: 0,
            dropped: 0,
            mapped: 0,
            accesses: [0; 2],
            window: WINDOW,
        })
    }

    /// Where things lie.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Blocks made since the cache was.
    #[must_use]
    pub const fn made(&self) -> u64 {
        self.made
    }

    /// Blocks dropped: as long as this stays the same, so does the meaning of every place, block and exit.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The block for `key`.
    #[must_use]
    pub fn find(&self, key: Key) -> Option<BlockId> {
        let mut at = self.keys[self.key_bucket(key)];
        while let Some(block) = self.blocks.get(at as usize) {
            if block.key == key {
                return Some(BlockId(at));
            }
            at = block.by_key[1];
        }
        None
    }

    /// Where a block's code begins.
    #[must_use]
    pub fn entry(&self, block: BlockId) -> u64 {
        self.address(self.blocks[block.0 as usize].start as usize)
    }

    /// Guest instructions and words of a block.
    #[must_use]
    pub fn size(&self, block: BlockId) -> (usize, usize) {
        let block = &self.blocks[block.0 as usize];
        (block.insns.into(), block.words.into())
    }

    /// Whether there is code from the guest-physical page at `page`.
    #[must_use]
    pub fn has_page(&self, page: Gpa) -> bool {
        self.in_page(page).is_some()
    }

    /// Makes a block for `key`, whose page and address are those of `source`; there is none yet. `values` are the guest's
    /// registers, as far as they are known. What lies in the way is dropped. The block goes when either of its pages is written.
    pub fn translate(
        &mut self,
        memory: &mut impl CodeMemory,
        key: Key,
        mut source: Source,
        values: &mut Values,
    ) -> BlockId {
        let room = |&(_, page): &(Page, Gpa)| {
            self.crossings.has_room(page, |id, serial| Self::lives(&self.blocks, id, serial))
        };
        source.next = source.next.filter(room);
        let insns = build(&mut self.draft, &self.layout, source, &self.sites, values);
        self.made += 1;
        for (all, new) in self.accesses.iter_mut().zip(self.draft.accesses) {
            *all += new;
        }
        if !self.has_room() {
            self.current = (self.current + 1) % PARTS;
            self.empty(memory, self.current);
        }
        let part = self.current;
        let used = self.parts[part];
        let start = part * self.share.words + used.words;
        let first_point = part * self.share.points + used.points;
        let first_exit = part * self.share.exits + used.exits;
        let id = (part * self.share.blocks + used.blocks) as u32;
        let draft = &self.draft;
        memory.set_all(start, &draft.words[..draft.len]);
        self.points[first_point..first_point + draft.point_count]
            .copy_from_slice(&draft.points[..draft.point_count]);
        for (way, &exit) in self.ways[first_exit..].iter_mut().zip(&draft.exits[..draft.exit_count])
        {
            let branch_word = draft.words.get(usize::from(exit.branch)).copied().unwrap_or(0);
            *way = Way { exit, branch_word, block: id, to: NONE, next: NONE, previous: NONE };
        }
        self.blocks[id as usize] = Block {
            key,
            alive: true,
            serial: self.made as u32,
            insns: insns as u8,
            start: start as u32,
            words: draft.len as u16,
            points: first_point as u32,
            exits: first_exit as u32,
            point_count: draft.point_count as u16,
            aside: draft.aside as u16,
            exit_count: draft.exit_count as u16,
            by_key: [NONE; 2],
            by_page: [NONE; 2],
            incoming: NONE,
        };
        let granules = self.share.words.div_ceil(GRANULE);
        let begin = used.words.div_ceil(GRANULE)..(used.words + draft.len).div_ceil(GRANULE);
        self.granules[part * granules..][begin].fill(used.blocks as u16);
        self.parts[part] = Used {
            words: used.words + draft.len,
            blocks: used.blocks + 1,
            points: used.points + draft.point_count,
            exits: used.exits + draft.exit_count,
        };
        let (by_key, by_page) = (self.key_bucket(key), self.page_bucket(key.page));
        Self::enlist(&mut self.blocks, &mut self.keys[by_key], id, |block| &mut block.by_key);
        Self::enlist(&mut self.blocks, &mut self.pages[by_page], id, |block| &mut block.by_page);
        self.mapped += usize::from(is_mapped(key.pc));
        if let Some((_, page)) = source.next.filter(|_| self.draft.crosses) {
            let Self { crossings, blocks, made, .. } = self;
            crossings.add(page, id, *made as u32, |id, serial| Self::lives(blocks, id, serial));
        }
        BlockId(id)
    }

    /// The class that would better be the main one, by what code has been made for lately.
    pub fn better_main(&mut self) -> Option<Class> {
        if self.accesses.iter().sum::<u32>() < self.window {
            return None;
        }
        let [cached, compat] = core::mem::take(&mut self.accesses);
        let clear = [cached > CLEARLY * compat, compat > CLEARLY * cached];
        let (class, _) = CANDIDATES.into_iter().zip(clear).find(|(_, clear)| *clear)?;
        (class != self.layout.main).then_some(class)
    }

    /// Another class becomes the main one: all blocks are for the old one, and go. Next time that takes more to happen.
    pub fn set_main(&mut self, memory: &mut impl CodeMemory, main: Class) {
        self.clear(memory);
        self.layout.main = main;
        self.window = self.window.saturating_mul(2);
    }

    /// Where the guest goes by an exit.
    #[must_use]
    pub fn target(&self, exit: ExitId) -> u64 {
        self.ways[exit.0 as usize].exit.target
    }

    /// Chains an exit to a block, which is for its target and for the same mode.
    pub fn chain(&mut self, memory: &mut impl CodeMemory, exit: ExitId, to: BlockId) {
        self.unchain(memory, exit.0);
        let start = self.blocks[to.0 as usize].start as usize;
        let first = self.blocks[to.0 as usize].incoming;
        let Way { exit: way, branch_word, block, .. } = self.ways[exit.0 as usize];
        let from = self.blocks[block as usize].start as usize;
        let branch = from + usize::from(way.branch);
        // In any case the exit itself: who stands there goes on from there.
        set_branch(memory, from + usize::from(way.word), asm::j(self.address(start)));
        if way.branch != NO_BRANCH
            && let Some(word) = asm::branch_to(branch_word, branch, start)
        {
            set_branch(memory, branch, word);
        }
        let way = &mut self.ways[exit.0 as usize];
        (way.to, way.next, way.previous) = (to.0, first, NONE);
        if let Some(first) = self.ways.get_mut(first as usize) {
            first.previous = exit.0;
        }
        self.blocks[to.0 as usize].incoming = exit.0;
    }

    /// The guest-physical page at `page` has been written: no code from it is used again. Whether
    /// there was any.
    pub fn invalidate(&mut self, memory: &mut impl CodeMemory, page: Gpa) -> bool {
        let mut any = false;
        while let Some(block) = self.in_page(page) {
            self.drop_block(memory, block);
            any = true;
        }
        any
    }

    /// What guest addresses of mapped segments mean has changed.
    pub fn forget_mapped(&mut self, memory: &mut impl CodeMemory) {
        if self.mapped == 0 {
            return;
        }
        for part in 0..PARTS {
            for n in 0..self.parts[part].blocks {
                let id = part * self.share.blocks + n;
                if self.blocks[id].alive && is_mapped(self.blocks[id].key.pc) {
                    self.drop_block(memory, id as u32);
                }
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, memory: &mut impl CodeMemory) {
        for part in 0..PARTS {
            self.empty(memory, part);
        }
    }

    /// The access of the instruction at `pc`, where emitted code of `block` has failed, is at guest address `va`:
    /// whether that is news, at least for this block, so that it should be made anew.
    pub fn note(&mut self, block: BlockId, pc: u64, va: u64) -> bool {
        let since = self.sites.note(pc, va, self.made as u32);
        // (An instruction may be in several blocks.)
        let age = since.wrapping_sub(self.blocks[block.0 as usize].serial);
        age.cast_signed() >= 0
    }

    /// Drops a block.
    pub fn remove(&mut self, memory: &mut impl CodeMemory, block: BlockId) {
        if self.blocks[block.0 as usize].alive {
            self.drop_block(memory, block.0);
        }
    }

    fn address(&self, word: usize) -> u64 {
        self.layout.code + 4 * word as u64
    }

    /// Multiplication spreads what lies close (Knuth, vol. 3, 6.4).
    const fn spread(&self, value: u64) -> usize {
        let bits = self.keys.len().trailing_zeros();
        (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize
    }

    fn key_bucket(&self, key: Key) -> usize {
        self.spread(key.pc >> 2 ^ u64::from(key.flags) << 56)
    }

    fn page_bucket(&self, page: Gpa) -> usize {
        self.spread(page.0 / PAGE_SIZE)
    }

    fn in_page(&self, page: Gpa) -> Option<u32> {
        let mut at = self.pages[self.page_bucket(page)];
        while let Some(block) = self.blocks.get(at as usize) {
            if block.key.page == page {
                return Some(at);
            }
            at = block.by_page[1];
        }
        self.crossings.find(page, |id, serial| Self::lives(&self.blocks, id, serial))
    }

    /// Whether the block that was made as number `serial` is still there.
    fn lives(blocks: &[Block], id: u32, serial: u32) -> bool {
        let block = &blocks[id as usize];
        block.alive && block.serial == serial
    }

    /// How many blocks depend on two pages.
    #[cfg(test)]
    pub(super) fn crossing(&self) -> usize {
        self.crossings.count(|id, serial| Self::lives(&self.blocks, id, serial))
    }

    fn has_room(&self) -> bool {
        let (used, share, draft) = (&self.parts[self.current], &self.share, &self.draft);
        used.words + draft.len <= share.words
            && used.blocks < share.blocks
            && used.points + draft.point_count <= share.points
            && used.exits + draft.exit_count <= share.exits
    }

    #[inline(always)]
    fn enlist(blocks: &mut [Block], first: &mut u32, id: u32, which: Neighbours) {
        if let Some(second) = blocks.get_mut(*first as usize) {
            which(second)[0] = id;
        }
        *which(&mut blocks[id as usize]) = [NONE, *first];
        *first = id;
    }

    fn delist(blocks: &mut [Block], first: &mut u32, id: u32, which: Neighbours) {
        let [previous, next] = *which(&mut blocks[id as usize]);
        match blocks.get_mut(previous as usize) {
            Some(previous) => which(previous)[1] = next,
            None => *first = next,
        }
        if let Some(next) = blocks.get_mut(next as usize) {
            which(next)[0] = previous;
        }
    }

    fn empty(&mut self, memory: &mut impl CodeMemory, part: usize) {
        for n in 0..self.parts[part].blocks {
            let id = part * self.share.blocks + n;
            if self.blocks[id].alive {
                self.drop_block(memory, id as u32);
            }
        }
        self.parts[part] = Used::default();
    }

    fn drop_block(&mut self, memory: &mut impl CodeMemory, id: u32) {
        let Block { key, exits, exit_count, .. } = self.blocks[id as usize];
        for exit in exits..exits + u32::from(exit_count) {
            self.unchain(memory, exit);
        }
        while let exit = self.blocks[id as usize].incoming
            && exit != NONE
        {
            self.unchain(memory, exit);
        }
        let (by_key, by_page) = (self.key_bucket(key), self.page_bucket(key.page));
        Self::delist(&mut self.blocks, &mut self.keys[by_key], id, |block| &mut block.by_key);
        Self::delist(&mut self.blocks, &mut self.pages[by_page], id, |block| &mut block.by_page);
        self.blocks[id as usize].alive = false;
        self.mapped -= usize::from(is_mapped(key.pc));
        self.dropped += 1;
        memory.gone(key.pc);
    }

    /// An exit leads to the runtime again.
    fn unchain(&mut self, memory: &mut impl CodeMemory, exit: u32) {
        let Way { exit: way, branch_word, block, to, next, previous } = self.ways[exit as usize];
        if to == NONE {
            return;
        }
        let from = self.blocks[block as usize].start as usize;
        if way.branch != NO_BRANCH {
            set_branch(memory, from + usize::from(way.branch), branch_word);
        }
        set_branch(memory, from + usize::from(way.word), BREAK);
        match self.ways.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => self.blocks[to as usize].incoming = next,
        }
        if let Some(next) = self.ways.get_mut(next as usize) {
            next.previous = previous;
        }
        self.ways[exit as usize].to = NONE;
    }
}

#[cfg(test)]
#[path = "tests/cache.rs"]
mod tests;
