//! What the cells' own records say about who depends on what, read out of the machine's memory while it stands still.
//!
//! Each monitor has a [directory](abi::directory), always at the same place of its image, which names where its memmap and its part of
//! the registry lie. Nobody is asked: the monitors execute nothing meanwhile.
//!
//! A VM *depends* on a cell other than its home if its home's memmap records a page of that cell's memory as the VM's, or if its home's
//! part of the registry says that one of its VCPUs is there. A VCPU that is between the two cells may still be taken by one of them or
//! not, depending on what has been written already; and a spread VM that has no page there yet may be promised some: such a VM may
//! be lost or not.

use crate::endian::Endian;
use crate::run::count::symbols;
use crate::run::facts::VmFacts;
use crate::run::ram::Ram;
use abi::directory::{LIFE, Named, Place, WORDS};
use abi::layout::Layout;
use abi::memmap::{Owner, Word};
use abi::{CellId, Mpa, NodeId, PAGE_SHIFT, VmId, map};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt;

/// XKPHYS, cache attribute 3: how the monitor reaches its heap.
const XKPHYS: u64 = 0x9800_0000_0000_0000;
/// The name of the static variable that is a monitor's directory.
const DIRECTORY: &str = "kernel::start::DIRECTORY";

/// What must become of a VM when a cell dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It goes on.
    Lives,
    /// It goes on or is lost.
    Either,
    /// It is lost.
    Lost,
}

/// Why a VM may be lost with a cell that is not its home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dependence {
    /// Pages that it has there.
    pub pages: u64,
    /// VCPUs that it has there.
    pub vcpus: u32,
    /// VCPUs that are on their way from or to there.
    pub moving: u32,
}

/// Reads a machine's memory.
#[derive(Debug)]
pub struct Reader {
    ram: Ram,
    layout: Layout,
    endian: Endian,
    /// Where in a monitor's image its directory lies.
    directory: u64,
    /// The number of each VM's first VCPU, and how many it has.
    vcpus: Vec<(usize, usize)>,
}

/// What the cells record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    cells: BTreeMap<u8, Cell>,
    vcpus: Vec<(usize, usize)>,
}

/// What one does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cell {
    /// Who owns each machine page that it records.
    pages: BTreeMap<Mpa, Owner>,
    /// Where it knows each of the machine's VCPUs to be, and in which life.
    places: Vec<(Place, u32)>,
}

impl Reader {
    /// For the machine whose memory is `ram`, whose monitors were built as `elf`, and whose VMs are `vms`.
    ///
    /// # Errors
    /// The monitor has no directory.
    pub fn new(
        ram: Ram,
        layout: Layout,
        endian: Endian,
        elf: &[u8],
        vms: &[VmFacts],
    ) -> Result<Self> {
        let directory = symbols(elf)?.into_iter().find(|symbol| symbol.name == DIRECTORY);
        let directory = directory.with_context(|| format!("the monitor has no {DIRECTORY}"))?;
        let numbers = vms.iter().scan(0, |next, vm| {
            let first = *next;
            *next += vm.vcpus as usize;
            Some((first, vm.vcpus as usize))
        });
        Ok(Self {
            ram,
            layout,
            endian,
            directory: directory.at - map::MONITOR_VA,
            vcpus: numbers.collect(),
        })
    }

    /// What these cells record; none: one of them is just changing what its directory names.
    ///
    /// # Errors
    /// Its directory, or what it names, makes no sense.
    pub fn read(&self, cells: impl Iterator<Item = CellId>) -> Result<Option<Records>> {
        let mut records = Records { vcpus: self.vcpus.clone(), ..Records::default() };
        for cell in cells {
            let Some(found) =
                self.cell(cell).with_context(|| format!("the records of cell {cell}"))?
            else {
                return Ok(None);
            };
            records.cells.insert(cell.0, found);
        }
        Ok(Some(records))
    }

    fn cell(&self, cell: CellId) -> Result<Option<Cell>> {
        let directory = Mpa(self.layout.reserve(cell).start + self.directory);
        let Some(named) = Named::decode(&self.words(directory, WORDS)?) else { return Ok(None) };
        let mut found = Cell::default();
        for (start, pages, at) in named.pieces {
            let words = self.words(heap(at)?, usize::try_from(pages)?)?;
            for (page, word) in (start.page()..).zip(words) {
                let owner = Word(word).owner();
                let mpa = Mpa(page << PAGE_SHIFT);
                found.pages.insert(mpa, owner.with_context(|| format!("the word of page {mpa}"))?);
            }
        }
        let (count, stride) = (usize::try_from(named.vcpus)?, usize::try_from(named.stride)?);
        let registry = heap(named.registry)?;
        let bytes = self.bytes(registry, count.checked_mul(stride).context("its registry")?)?;
        for entry in bytes.chunks_exact(stride.max(LIFE + 4)) {
            let place = Place::from_bytes([entry[0], entry[1]]).context("a VCPU's place")?;
            let life = entry[LIFE..LIFE + 4].try_into().map(|bytes| match self.endian {
                Endian::Little => u32::from_le_bytes(bytes),
                Endian::Big => u32::from_be_bytes(bytes),
            });
            found.places.push((place, life?));
        }
        Ok(Some(found))
    }

    fn words(&self, at: Mpa, count: usize) -> Result<Vec<u64>> {
        let bytes = self.bytes(at, count.checked_mul(8).context("too many words")?)?;
        let word = |bytes: &[u8]| {
            let bytes = bytes.try_into().expect("a chunk of 8");
            match self.endian {
                Endian::Little => u64::from_le_bytes(bytes),
                Endian::Big => u64::from_be_bytes(bytes),
            }
        };
        Ok(bytes.chunks_exact(8).map(word).collect())
    }

    fn bytes(&self, at: Mpa, count: usize) -> Result<Vec<u8>> {
        let (start, end) = (at.0, at.0.saturating_add(count as u64));
        let inside = |range: &std::ops::Range<u64>| range.start <= start && end <= range.end;
        let layout = &self.layout;
        let windows = map::WINDOW_BASE..map::WINDOW_BASE + u64::from(layout.nodes) * layout.window;
        let ram = map::RAM_BASE..map::RAM_BASE + layout.ram_size();
        let offset = if inside(&windows) {
            Ram::window_offset(layout, NodeId(0)) + start - windows.start
        } else {
            anyhow::ensure!(inside(&ram), "{count} bytes at {at} are no memory of the machine");
            start - ram.start
        };
        self.ram.read(offset, count).with_context(|| format!("the machine's memory at {at}"))
    }
}

/// The machine address of something on a monitor's heap.
fn heap(at: u64) -> Result<Mpa> {
    let mpa = at.wrapping_sub(XKPHYS);
    anyhow::ensure!(mpa < 1 << 36, "{at:#x} is no address of the monitor's heap");
    Ok(Mpa(mpa))
}

impl Records {
    /// The home of VM `vm`: the cell that records pages as that VM's, `likely` if that is one of several (one that it has left may have to
    /// keep them for a while); none: no cell does.
    pub fn home(&self, vm: VmId, likely: CellId) -> Option<CellId> {
        let is = |owner: &Owner| matches!(owner, Owner::Vm { vm: other, .. } if *other == vm);
        let has = |(_, cell): &(&u8, &Cell)| cell.pages.values().any(is);
        let homes = || self.cells.iter().filter(has).map(|(cell, _)| CellId(*cell));
        homes().find(|home| *home == likely).or_else(|| homes().next())
    }

    /// What VM `vm`, whose home is `home`, has of `cell`, another one.
    ///
    /// # Errors
    /// The two cells' records contradict each other.
    pub fn dependence(
        &self,
        layout: &Layout,
        vm: VmId,
        home: CellId,
        cell: CellId,
    ) -> Result<Dependence, String> {
        let mut found = Dependence::default();
        let (Some(ours), Some(theirs)) = (self.cells.get(&home.0), self.cells.get(&cell.0)) else {
            return Err(format!("no records of cells {home} and {cell}"));
        };
        for (mpa, owner) in &ours.pages {
            if !matches!(owner, Owner::Vm { vm: other, .. } if *other == vm)
                || cell_of(layout, *mpa) != Some(cell)
            {
                continue;
            }
            found.pages += 1;
            match theirs.pages.get(mpa) {
                Some(Owner::Lent { to, .. }) if *to == home => {}
                other => {
                    return Err(format!(
                        "page {mpa} is VM {vm}'s, says cell {home}, and cell {cell}, whose it is, says {other:?}"
                    ));
                }
            }
        }
        let (first, count) = self.vcpus.get(usize::from(vm.0)).copied().unwrap_or_default();
        for index in first..first + count {
            let place = |cell: &Cell| cell.places.get(index).copied().unwrap_or_default();
            let ((here, life), (there, other)) = (place(ours), place(theirs));
            let comes = there == Place::Leaving(home) && other == life;
            match here {
                Place::At(at) if at == cell && !comes => found.vcpus += 1,
                Place::At(at) | Place::Leaving(at) if at == cell => found.moving += 1,
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Whose memory a machine page is.
fn cell_of(layout: &Layout, mpa: Mpa) -> Option<CellId> {
    layout.node_at(mpa.0).map(|node| layout.cell(node))
}

impl fmt::Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pages, vcpus, moving } = self;
        write!(f, "{pages} pages, {vcpus} VCPUs, {moving} on their way")
    }
}

impl Dependence {
    /// What must become of the VM when the cell dies.
    pub fn fate(self, is_spread: bool) -> Fate {
        if self.pages != 0 || self.vcpus != 0 {
            Fate::Lost
        } else if self.moving != 0 || is_spread {
            Fate::Either
        } else {
            Fate::Lives
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::directory::Directory;
    use abi::ids::MAX_NODES;

    const DIRECTORY_AT: u64 = 0x1000;
    const WORDS_AT: u64 = 0x10_0000;
    const REGISTRY_AT: u64 = 0x20_0000;
    const STRIDE: usize = 24;

    fn layout() -> Layout {
        let mut cell_of = [CellId(0); MAX_NODES];
        cell_of[1] = CellId(1);
        Layout {
            nodes: 2,
            cpus_per_node: 1,
            window: 32 << 20,
            slice: 1 << 20,
            kept: 32 << 20,
            cell_of,
        }
    }

    /// A machine of two cells with two VMs, of one VCPU and of two.
    fn reader(endian: Endian) -> Reader {
        let (layout, ram) = (layout(), Ram::new(Ram::size_of(&layout())).unwrap());
        Reader { ram, layout, endian, directory: DIRECTORY_AT, vcpus: vec![(0, 1), (1, 2)] }
    }

    impl Reader {
        /// Writes what a monitor would: pieces of memory with their pages' owners, and VCPUs' places.
        fn write(&self, cell: u8, pieces: &[(u64, &[Owner])], places: &[([u8; 2], u32)]) {
            let base = self.layout.reserve(CellId(cell)).start;
            let offset = |at: u64| Ram::window_offset(&self.layout, NodeId(cell)) + at;
            let put = |at: u64, words: &mut dyn Iterator<Item = u64>| {
                let bytes: Vec<u8> = words
                    .flat_map(|word| match self.endian {
                        Endian::Little => word.to_le_bytes(),
                        Endian::Big => word.to_be_bytes(),
                    })
                    .collect();
                self.ram.write(offset(at), &bytes).unwrap();
            };
            let directory = Directory::new();
            let mut at = WORDS_AT;
            let named = pieces.iter().map(|(start, owners)| {
                put(at, &mut owners.iter().map(|owner| Word::owned(*owner).0));
                let this = (*start, owners.len() as u64, XKPHYS + base + at);
                at += 8 * owners.len() as u64;
                this
            });
            directory.name(named);
            directory.name_registry(XKPHYS + base + REGISTRY_AT, places.len(), STRIDE);
            put(DIRECTORY_AT, &mut directory.words());
            for (i, (place, life)) in places.iter().enumerate() {
                let mut entry = vec![0; STRIDE];
                entry[..2].copy_from_slice(place);
                entry[LIFE..LIFE + 4].copy_from_slice(&match self.endian {
                    Endian::Little => life.to_le_bytes(),
                    Endian::Big => life.to_be_bytes(),
                });
                self.ram.write(offset(REGISTRY_AT) + (i * STRIDE) as u64, &entry).unwrap();
            }
        }
    }

    const HERE: [u8; 2] = [1, 0];

    #[test]
    fn pages_and_vcpus_in_another_cell_are_found_in_both_byte_orders() {
        for endian in Endian::ALL {
            let reader = reader(endian);
            let (own, lent) =
                (layout().slice_of(NodeId(0)).start, layout().slice_of(NodeId(1)).start);
            let vm = |vm, page| Owner::Vm { vm: VmId(vm), page };
            let loan = Owner::Lent { to: CellId(0), loan: 1 };
            let ours = [vm(0, 0), vm(1, 0), Owner::Free];
            reader.write(
                0,
                &[(own, &ours), (lent, &[vm(1, 1), Owner::Free])],
                &[(HERE, 1), (HERE, 3), ([4, 1], 3)],
            );
            reader.write(
                1,
                &[(lent, &[loan, loan, Owner::Monitor])],
                &[([0, 0], 0), ([4, 0], 3), (HERE, 3)],
            );
            let records = reader.read([CellId(0), CellId(1)].into_iter()).unwrap().unwrap();
            let of = |vm| records.dependence(&layout(), VmId(vm), CellId(0), CellId(1)).unwrap();
            assert_eq!(of(0), Dependence::default());
            assert_eq!(of(1), Dependence { pages: 1, vcpus: 1, moving: 0 });
            assert_eq!((of(0).fate(false), of(0).fate(true)), (Fate::Lives, Fate::Either));
            assert_eq!(of(1).fate(false), Fate::Lost);

            // What was lent is recorded by both.
            reader.write(1, &[(lent, &[Owner::Free, loan, Owner::Monitor])], &[([0, 0], 0); 3]);
            let records = reader.read([CellId(0), CellId(1)].into_iter()).unwrap().unwrap();
            let wrong = records.dependence(&layout(), VmId(1), CellId(0), CellId(1)).unwrap_err();
            assert!(
                wrong.contains("is VM 1's, says cell 0, and cell 1, whose it is, says Some(Free)"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_vcpu_between_two_cells_may_be_lost_or_not() {
        let reader = reader(Endian::Little);
        let own = layout().slice_of(NodeId(0)).start;
        let fate = |ours, theirs| {
            reader.write(0, &[(own, &[Owner::Free])], &[(ours, 5), (HERE, 1), (HERE, 1)]);
            reader.write(1, &[(own, &[Owner::Free])], &[(theirs, 5), ([0, 0], 0), ([0, 0], 0)]);
            let records = reader.read([CellId(0), CellId(1)].into_iter()).unwrap().unwrap();
            records.dependence(&layout(), VmId(0), CellId(0), CellId(1)).unwrap().fate(false)
        };
        let (leaving, arriving, at) = (2, 3, 4);
        assert_eq!(fate([leaving, 1], [0, 0]), Fate::Either);
        assert_eq!(fate([leaving, 1], [arriving, 0]), Fate::Either);
        assert_eq!(fate([at, 1], [arriving, 0]), Fate::Lost, "it has been accepted");
        assert_eq!(fate([at, 1], HERE), Fate::Lost);
        assert_eq!(fate([at, 1], [leaving, 0]), Fate::Either);
        assert_eq!(fate([arriving, 1], [leaving, 0]), Fate::Lives, "its home has a copy");
        assert_eq!(fate(HERE, [at, 0]), Fate::Lives);
    }

    #[test]
    fn nonsense_is_no_record() {
        let reader = reader(Endian::Little);
        let all = || [CellId(0)].into_iter();
        assert!(reader.read(all()).unwrap().is_none(), "nothing is named yet");
        reader.write(0, &[(0x7000_0000, &[Owner::Free])], &[([9, 0], 1)]);
        assert!(format!("{:#}", reader.read(all()).unwrap_err()).contains("a VCPU's place"));
        let at = Ram::window_offset(&layout(), NodeId(0)) + WORDS_AT;
        reader.ram.write(at, &[0xff; 8]).unwrap();
        assert!(format!("{:#}", reader.read(all()).unwrap_err()).contains("the word of page"));
    }
}
