//! The memmap: the cell's record of each of its machine pages, and the frame allocator in it.
//!
//! One 64-bit word a page says who owns it. The words of free pages also link them into a list for
//! each node, so that taking and giving back a page costs a few instructions and no memory, however
//! many pages there are. Nothing here needs pages to be contiguous: a VM sees its memory through its
//! [pmap](crate::pmap).
//!
//! # Invariants
//!
//! - **MEM-SUM**: for each node, `free + monitor + vm = total`, in pages.
//! - **MEM-LIST**: a page is in its node's free list if and only if its word says that it is free.
//! - **MEM-MAP**: page `m` belongs to `(v, g)` if and only if VM `v`'s pmap maps `g` to `m`.
//!
//! MEM-SUM is asserted whenever a VM's memory is given back; [`Memmap::audit`] checks the first two
//! from the words themselves, [`Memmap::audit_pmap`] the third.

use abi::{Mpa, NodeId, PAGE_SHIFT, VmId};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use crate::pmap::Pmap;

/// Contiguous machine memory of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Whose it is.
    pub node: NodeId,
    /// Where it lies, page-aligned.
    pub range: Range<Mpa>,
}

/// Who owns a machine page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    Free,
    /// The monitor: its image, its heap, this record.
    Monitor,
    /// A VM.
    Vm {
        /// Which.
        vm: VmId,
        /// The page's number in the VM's memory ([`crate::pmap`]).
        page: u32,
    },
}

/// A page's word: a tag in the top byte and what belongs to it below.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const TAG_SHIFT: u32 = 56;
    const FREE: u64 = 1;
    const MONITOR: u64 = 2;
    const VM: u64 = 3;

    /// A free page, and the index of the next one in the node's list.
    const fn free(next: u32) -> Self {
        Self(Self::FREE << Self::TAG_SHIFT | next as u64)
    }

    const fn owned(owner: Owner, next: u32) -> Self {
        match owner {
            Owner::Free => Self::free(next),
            Owner::Monitor => Self(Self::MONITOR << Self::TAG_SHIFT),
            Owner::Vm { vm, page } => {
                Self(Self::VM << Self::TAG_SHIFT | (vm.0 as u64) << 32 | page as u64)
            }
        }
    }

    /// The low half: the next free page, or the VM's page.
    const fn low(self) -> u32 {
        self.0 as u32
    }

    const fn owner(self) -> Owner {
        match self.0 >> Self::TAG_SHIFT {
            Self::FREE => Owner::Free,
            Self::VM => Owner::Vm { vm: VmId((self.0 >> 32) as u16), page: self.low() },
            _ => Owner::Monitor,
        }
    }
}

/// The end of a free list.
const NONE: u32 = u32::MAX;

/// Pages by owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// All there are.
    pub total: u64,
    /// Nobody's.
    pub free: u64,
    /// The monitor's.
    pub monitor: u64,
    /// The VMs'.
    pub vm: u64,
}

impl Accounts {
    /// MEM-SUM.
    #[must_use]
    pub const fn balanced(&self) -> bool {
        self.free + self.monitor + self.vm == self.total
    }

    fn slot(&mut self, owner: Owner) -> &mut u64 {
        match owner {
            Owner::Free => &mut self.free,
            Owner::Monitor => &mut self.monitor,
            Owner::Vm { .. } => &mut self.vm,
        }
    }
}

impl core::ops::AddAssign for Accounts {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.free += other.free;
        self.monitor += other.monitor;
        self.vm += other.vm;
    }
}

/// Which invariant does not hold, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// MEM-SUM: the node's counters and its words differ.
    Sum {
        /// The node.
        node: NodeId,
        /// What its counters say.
        counted: Accounts,
        /// What its words say.
        found: Accounts,
    },
    /// MEM-LIST: the node's free list is not its free pages.
    List {
        /// The node.
        node: NodeId,
    },
    /// MEM-MAP: a pmap and the memmap disagree about this page.
    Map {
        /// The page.
        mpa: Mpa,
    },
    /// MEM-MAP: pages are recorded as VMs' that no pmap maps, or the other way round.
    Unmapped {
        /// Pages that the memmap says are VMs'.
        recorded: u64,
        /// Pages in all pmaps.
        mapped: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sum { node, counted, found } => {
                write!(f, "MEM-SUM: node {node} counts {counted:?} but has {found:?}")
            }
            Self::List { node } => {
                write!(f, "MEM-LIST: the free list of node {node} is not its free pages")
            }
            Self::Map { mpa } => {
                write!(f, "MEM-MAP: memmap and pmap disagree about machine page {mpa}")
            }
            Self::Unmapped { recorded, mapped } => {
                write!(f, "MEM-MAP: {recorded} pages are VMs' but {mapped} are mapped")
            }
        }
    }
}

/// A node's share of the record.
#[derive(Debug)]
struct Node {
    id: NodeId,
    accounts: Accounts,
    /// The first free page.
    head: u32,
}

/// A region and the index of its first page's word.
#[derive(Debug)]
struct Span {
    region: Region,
    first: u32,
    node: usize,
}

/// The record of a cell's machine pages.
pub struct Memmap {
    words: Vec<Word>,
    spans: Vec<Span>,
    nodes: Vec<Node>,
}

impl fmt::Debug for Memmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memmap").field("spans", &self.spans).field("nodes", &self.nodes).finish()
    }
}

impl Memmap {
    /// Heap bytes that the record of `pages` pages takes.
    #[must_use]
    pub const fn heap_bytes(pages: u64) -> u64 {
        pages * size_of::<Word>() as u64
    }

    /// The record of `regions`, of which the pages that `monitor` touches are the monitor's and the
    /// others free. Lower pages are given out first.
    ///
    /// # Errors
    /// When the heap has not [`Self::heap_bytes`].
    ///
    /// # Panics
    /// When regions are not page-aligned, overlap, or have 2^32 pages or more: the machine's map is
    /// the monitor's own knowledge.
    pub fn new(regions: &[Region], monitor: &[Range<Mpa>]) -> Result<Self, TryReserveError> {
        let mut spans = Vec::new();
        let mut nodes: Vec<Node> = Vec::new();
        let mut pages = 0u64;
        for region in regions {
            let Range { start, end } = region.range;
            assert!(start.offset() == 0 && end.offset() == 0 && start <= end, "{region:?}");
            let node = nodes.iter().position(|n| n.id == region.node).unwrap_or_else(|| {
                nodes.push(Node { id: region.node, accounts: Accounts::default(), head: NONE });
                nodes.len() - 1
            });
            let first = u32::try_from(pages).expect("fewer than 2^32 pages");
            pages += end.page() - start.page();
            spans.push(Span { region: region.clone(), first, node });
        }
        for (i, a) in spans.iter().enumerate() {
            let apart = |b: &Span| {
                a.region.range.end <= b.region.range.start
                    || b.region.range.end <= a.region.range.start
            };
            assert!(spans[..i].iter().all(apart), "{:?} overlaps another", a.region);
        }
        let pages =
            u32::try_from(pages).ok().filter(|&n| n != NONE).expect("fewer than 2^32 pages");
        let mut words = Vec::new();
        words.try_reserve_exact(pages as usize)?;
        words.resize(pages as usize, Word::owned(Owner::Monitor, NONE));
        let mut map = Self { words, spans, nodes };
        // From the last page down, so that the lists begin with the first.
        for s in (0..map.spans.len()).rev() {
            let Span { region, first, node } = &map.spans[s];
            let (range, first, node) = (region.range.clone(), *first, *node);
            for page in (range.start.page()..range.end.page()).rev() {
                let account = &mut map.nodes[node].accounts;
                account.total += 1;
                let taken = |r: &Range<Mpa>| r.start.page() <= page && page << PAGE_SHIFT < r.end.0;
                if monitor.iter().any(taken) {
                    account.monitor += 1;
                } else {
                    account.free += 1;
                    let index = first + (page - range.start.page()) as u32;
                    map.words[index as usize] = Word::free(map.nodes[node].head);
                    map.nodes[node].head = index;
                }
            }
        }
        Ok(map)
    }

    fn index(&self, mpa: Mpa) -> Option<(u32, usize)> {
        let span = self.spans.iter().find(|s| s.region.range.contains(&mpa))?;
        Some((span.first + (mpa.page() - span.region.range.start.page()) as u32, span.node))
    }

    fn mpa(&self, index: u32) -> Mpa {
        let at = self.spans.partition_point(|s| s.first <= index) - 1;
        // Several spans have the same `first` when some are empty: the last of them has the page.
        let span = &self.spans[at];
        Mpa((span.region.range.start.page() + u64::from(index - span.first)) << PAGE_SHIFT)
    }

    /// Takes a free page of `node` for `owner`; `None` when the node has none.
    ///
    /// # Panics
    /// When `owner` is nobody.
    pub fn take(&mut self, node: NodeId, owner: Owner) -> Option<Mpa> {
        assert!(owner != Owner::Free, "a page is taken for somebody");
        let node = self.nodes.iter_mut().find(|n| n.id == node)?;
        let index = node.head;
        if index == NONE {
            return None;
        }
        let word = &mut self.words[index as usize];
        node.head = word.low();
        *word = Word::owned(owner, NONE);
        node.accounts.free -= 1;
        *node.accounts.slot(owner) += 1;
        Some(self.mpa(index))
    }

    /// Gives back the page `mpa`, which belongs to `owner`.
    ///
    /// # Panics
    /// When it belongs to somebody else, nobody, or another cell: a bug of the monitor that must not
    /// become a page with two owners.
    pub fn give(&mut self, mpa: Mpa, owner: Owner) {
        let found = self.owner(mpa);
        assert!(
            owner != Owner::Free && found == Some(owner),
            "{mpa} is given back as {owner:?} but belongs to {found:?}"
        );
        let (index, node) = self.index(mpa).expect("a page whose owner is known");
        let node = &mut self.nodes[node];
        self.words[index as usize] = Word::free(node.head);
        node.head = index;
        node.accounts.free += 1;
        *node.accounts.slot(owner) -= 1;
    }

    /// Who owns the page that holds `mpa`; `None` when it is not this cell's.
    #[must_use]
    pub fn owner(&self, mpa: Mpa) -> Option<Owner> {
        self.index(mpa).map(|(index, _)| self.words[index as usize].owner())
    }

    /// The nodes that have memory, with their pages by owner.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, Accounts)> + '_ {
        self.nodes.iter().map(|n| (n.id, n.accounts))
    }

    /// The cell's pages by owner.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        let mut sum = Accounts::default();
        for (_, accounts) in self.nodes() {
            sum += accounts;
        }
        sum
    }

    /// Checks MEM-SUM and MEM-LIST against every word.
    ///
    /// # Errors
    /// The first violation.
    pub fn audit(&self) -> Result<(), Violation> {
        for (i, node) in self.nodes.iter().enumerate() {
            let mut found = Accounts::default();
            for span in self.spans.iter().filter(|s| s.node == i) {
                let pages = span.region.range.end.page() - span.region.range.start.page();
                for word in &self.words[span.first as usize..][..pages as usize] {
                    found.total += 1;
                    *found.slot(word.owner()) += 1;
                }
            }
            if found != node.accounts || !found.balanced() {
                return Err(Violation::Sum { node: node.id, counted: node.accounts, found });
            }
            let mut at = node.head;
            let mut listed = 0;
            while at != NONE && listed <= found.free {
                let word = self.words.get(at as usize).copied();
                let Some((word, (_, home))) = word.zip(self.index(self.mpa(at))) else { break };
                if word.owner() != Owner::Free || home != i {
                    break;
                }
                listed += 1;
                at = word.low();
            }
            if at != NONE || listed != found.free {
                return Err(Violation::List { node: node.id });
            }
        }
        Ok(())
    }

    /// Checks one direction of MEM-MAP: each page of `vm`'s `pmap` is recorded as its own. With equal
    /// counts of pages (MEM-SUM and [`Pmap::resident`]) the other follows.
    ///
    /// # Errors
    /// The first page that is not.
    pub fn audit_pmap(&self, vm: VmId, pmap: &Pmap) -> Result<(), Violation> {
        for (page, mpa) in pmap.iter() {
            if self.owner(mpa) != Some(Owner::Vm { vm, page }) {
                return Err(Violation::Map { mpa });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use abi::PAGE_SIZE;
    use alloc::collections::BTreeMap;

    fn region(node: u8, base: u64, pages: u64) -> Region {
        Region { node: NodeId(node), range: Mpa(base)..Mpa(base + pages * PAGE_SIZE) }
    }

    /// Against a plain map from page to owner, with random takes and gives on three nodes.
    #[test]
    fn equals_a_naive_model() {
        let regions = [
            region(0, 0x9000_0000, 40),
            region(1, 0x7000_0000, 25),
            region(2, 0xa000_0000, 0),
            region(0, 0x7800_0000, 17),
        ];
        let monitor = [Mpa(0x9000_0000)..Mpa(0x9000_2001), Mpa(0x7000_1fff)..Mpa(0x7000_2000)];
        let mut map = Memmap::new(&regions, &monitor).unwrap();
        let mut model: BTreeMap<Mpa, (NodeId, Owner)> = BTreeMap::new();
        for r in &regions {
            for page in r.range.start.page()..r.range.end.page() {
                model.insert(Mpa(page << PAGE_SHIFT), (r.node, Owner::Free));
            }
        }
        for page in [0x9000_0000, 0x9000_1000, 0x9000_2000, 0x7000_1000] {
            model.get_mut(&Mpa(page)).unwrap().1 = Owner::Monitor;
        }
        let mut rng = Rng::new(7);
        let mut fullest = 0;
        for step in 0..20_000u32 {
            // Drift between nearly full and nearly empty.
            let taking = rng.below(100) < if step / 500 % 2 == 0 { 80 } else { 20 };
            if taking {
                let node = NodeId(rng.below(4) as u8);
                let owner = if rng.below(5) == 0 {
                    Owner::Monitor
                } else {
                    Owner::Vm { vm: VmId(rng.below(3) as u16), page: step }
                };
                let free = model.values().filter(|&&(n, o)| n == node && o == Owner::Free).count();
                match map.take(node, owner) {
                    Some(mpa) => {
                        let entry = model.get_mut(&mpa).expect("a page of the cell");
                        assert_eq!(*entry, (node, Owner::Free));
                        entry.1 = owner;
                    }
                    None => assert_eq!(free, 0),
                }
            } else {
                let taken: Vec<(Mpa, Owner)> = model
                    .iter()
                    .filter(|(_, (_, o))| *o != Owner::Free)
                    .map(|(&m, &(_, o))| (m, o))
                    .collect();
                if !taken.is_empty() {
                    let (mpa, owner) = taken[rng.below(taken.len() as u64) as usize];
                    map.give(mpa, owner);
                    model.get_mut(&mpa).unwrap().1 = Owner::Free;
                }
            }
            fullest = fullest.max(map.accounts().total - map.accounts().free);
            if step % 97 == 0 {
                assert_eq!(map.audit(), Ok(()));
                for (&mpa, &(_, owner)) in &model {
                    assert_eq!(map.owner(mpa), Some(owner));
                }
                for (node, accounts) in map.nodes() {
                    let count = |f: fn(&Owner) -> bool| {
                        model.values().filter(|(n, o)| *n == node && f(o)).count() as u64
                    };
                    assert_eq!(accounts.free, count(|o| *o == Owner::Free));
                    assert_eq!(accounts.monitor, count(|o| *o == Owner::Monitor));
                    assert_eq!(accounts.total, count(|_| true));
                }
            }
        }
        assert_eq!(fullest, 82, "the run never filled the machine");
        assert_eq!(map.owner(Mpa(0x6fff_f000)), None);
    }

    #[test]
    fn low_pages_first_and_the_page_given_back_next() {
        let mut map = Memmap::new(&[region(0, 0x9000_0000, 4)], &[]).unwrap();
        let owner = Owner::Monitor;
        let take = |map: &mut Memmap| map.take(NodeId(0), owner).map(|m| m.0);
        assert_eq!(take(&mut map), Some(0x9000_0000));
        assert_eq!(take(&mut map), Some(0x9000_1000));
        map.give(Mpa(0x9000_0000), owner);
        assert_eq!(take(&mut map), Some(0x9000_0000));
    }

    #[test]
    fn an_audit_finds_each_kind_of_damage() {
        let vm = Owner::Vm { vm: VmId(0), page: 0 };
        let whole = || {
            let mut map = Memmap::new(&[region(0, 0x9000_0000, 8)], &[]).unwrap();
            map.take(NodeId(0), vm).unwrap();
            map
        };
        assert_eq!(whole().audit(), Ok(()));
        let mut map = whole();
        map.words[0] = Word::owned(Owner::Monitor, NONE);
        assert!(matches!(map.audit(), Err(Violation::Sum { .. })));
        let mut map = whole();
        map.words[3] = Word::free(2);
        assert_eq!(map.audit(), Err(Violation::List { node: NodeId(0) }));
        let mut map = whole();
        map.words[3] = Word::free(NONE);
        assert_eq!(map.audit(), Err(Violation::List { node: NodeId(0) }));
        let mut map = whole();
        map.words[3] = Word::free(1000);
        assert_eq!(map.audit(), Err(Violation::List { node: NodeId(0) }));
    }

    #[test]
    #[should_panic(expected = "is given back as")]
    fn giving_back_another_owners_page_is_a_bug() {
        let mut map = Memmap::new(&[region(0, 0x9000_0000, 8)], &[]).unwrap();
        let mpa = map.take(NodeId(0), Owner::Monitor).unwrap();
        map.give(mpa, Owner::Vm { vm: VmId(0), page: 0 });
    }
}
