use super::*;
use crate::rng::Rng;
use abi::directory::{Directory, Named};
use abi::memmap::{NONE, Word};
use abi::{PAGE_SIZE, VmId};
use alloc::collections::BTreeMap;

fn region(node: u8, kind: Kind, base: u64, pages: u64) -> Region {
    Region { node: NodeId(node), kind, range: Mpa(base)..Mpa(base + pages * PAGE_SIZE) }
}

fn slice(base: u64, pages: u64) -> Memmap {
    Memmap::new(&[region(0, Kind::Slice, base, pages)], &[]).unwrap()
}

fn loan(lender: u8, number: u32) -> LoanId {
    LoanId { lender: CellId(lender), incarnation: 1, number }
}

/// Against a plain map from page to owner, with random takes, changes and gives on three nodes and on
/// borrowed pages.
#[test]
fn equals_a_naive_model() {
    let regions = [
        region(0, Kind::Slice, 0x9000_0000, 40),
        region(1, Kind::Slice, 0x9800_0000, 25),
        region(2, Kind::Slice, 0xa000_0000, 0),
        region(0, Kind::Window, 0x7800_0000, 10),
        region(0, Kind::Window, 0x7000_0000, 7),
    ];
    let monitor = [Mpa(0x9000_0000)..Mpa(0x9000_2001), Mpa(0x7000_1fff)..Mpa(0x7000_2000)];
    let mut map = Memmap::new(&regions, &monitor).unwrap();
    let mut model: BTreeMap<Mpa, (Option<NodeId>, Owner)> = BTreeMap::new();
    for r in &regions {
        for page in r.range.start.page()..r.range.end.page() {
            model.insert(Mpa(page << PAGE_SHIFT), (Some(r.node), Owner::Free));
        }
    }
    for page in [0x9000_0000, 0x9000_1000, 0x9000_2000, 0x7000_1000] {
        model.get_mut(&Mpa(page)).unwrap().1 = Owner::Monitor;
    }
    let borrowed = Run { start: Mpa(0xb000_0000), pages: 9 };
    let mut rng = Rng::new(7);
    let (mut fullest, mut loans, mut rows, mut ends) = (0, 0, 0, 0);
    for step in 0..20_000u32 {
        // Drift between nearly full and nearly empty.
        let taking = rng.below(100) < if step / 500 % 2 == 0 { 80 } else { 20 };
        let owner = match rng.below(6) {
            0 => Owner::Monitor,
            1 => Owner::Lent { to: CellId(1), loan: step },
            2 => Owner::Quarantined { from: CellId(2), loan: step },
            _ => Owner::Vm { vm: VmId(rng.below(3) as u16), page: step },
        };
        if step % 100 == 99 {
            let mut pages = borrowed.iter().filter_map(|mpa| model.get(&mpa));
            if model.contains_key(&borrowed.start) {
                if pages.all(|(_, owner)| *owner == Owner::Free) {
                    map.remove_borrowed(loan(3, 1)).unwrap();
                    model.retain(|mpa, _| !borrowed.contains(*mpa));
                }
            } else {
                map.add_borrowed(loan(3, 1), &[borrowed]).unwrap();
                loans += 1;
                model.extend(borrowed.iter().map(|mpa| (mpa, (None, Owner::Free))));
            }
        } else if step % 100 == 49 {
            // Pages in a row pass from one owner to another: lent, quarantined, free again.
            let lent = |loan| Owner::Lent { to: CellId(1), loan };
            let (from, to) = match rng.below(3) {
                0 => (Owner::Free, lent(rng.below(4) as u32)),
                1 => (lent(rng.below(4) as u32), Owner::Quarantined { from: CellId(1), loan: 9 }),
                _ => (Owner::Quarantined { from: CellId(1), loan: 9 }, Owner::Free),
            };
            let mut runs: Vec<Run> = Vec::new();
            for (&mpa, _) in model.iter().filter(|(_, (_, owner))| *owner == from) {
                match runs.last_mut() {
                    Some(run) if run.start.page() + u64::from(run.pages) == mpa.page() => {
                        run.pages += 1;
                    }
                    _ => runs.push(Run { start: mpa, pages: 1 }),
                }
            }
            for run in runs {
                map.change_run(run, from, to);
                rows += u32::from(run.pages > 1 && from != Owner::Free);
                run.iter().for_each(|mpa| model.get_mut(&mpa).unwrap().1 = to);
            }
        } else if step % 250 == 224 {
            // A VM ends. Its pages come in the order of their numbers, which is any order in the machine.
            let vm = VmId(rng.below(3) as u16);
            let mut pages = BTreeMap::new();
            for (&mpa, (_, held)) in &mut model {
                if let Owner::Vm { vm: other, page } = *held
                    && other == vm
                {
                    assert_eq!(pages.insert(page, mpa), None);
                    *held = Owner::Free;
                }
            }
            ends += usize::from(pages.len() > 9);
            map.give_all(vm, pages.into_iter());
        } else if taking {
            let node = (rng.below(5) != 0).then(|| NodeId(rng.below(4) as u8));
            let free = model.values().filter(|&&(n, o)| n == node && o == Owner::Free).count();
            let taken = match node {
                Some(node) => map.take(node, owner),
                None => map.take_borrowed(CellId(3), owner),
            };
            match taken {
                Some(mpa) => {
                    assert_eq!(model.insert(mpa, (node, owner)), Some((node, Owner::Free)));
                    // The preferred kind, while there is any of it.
                    let window = mpa.0 < 0x9000_0000;
                    let other = |m: &Mpa| (m.0 < 0x9000_0000) != window;
                    if node.is_some() && window != (owner == Owner::Monitor) {
                        let is_free = |v: &(Option<NodeId>, Owner)| *v == (node, Owner::Free);
                        assert!(!model.iter().any(|(m, v)| other(m) && is_free(v)));
                    }
                }
                None => assert_eq!(free, 0),
            }
        } else {
            let all: Vec<(Mpa, Owner)> = model
                .iter()
                .filter(|(_, (_, o))| *o != Owner::Free)
                .map(|(&m, &(_, o))| (m, o))
                .collect();
            if all.is_empty() {
                continue;
            }
            let (mpa, from) = all[rng.below(all.len() as u64) as usize];
            if rng.below(4) == 0 && owner != from {
                map.change(mpa, from, owner);
                model.get_mut(&mpa).unwrap().1 = owner;
            } else {
                map.give(mpa, from);
                model.get_mut(&mpa).unwrap().1 = Owner::Free;
            }
        }
        let used = model.values().filter(|(_, o)| *o != Owner::Free).count();
        fullest = fullest.max(used);
        if step % 97 == 0 {
            assert_eq!(map.audit(), Ok(()));
            for (&mpa, &(_, owner)) in &model {
                assert_eq!(map.owner(mpa), Some(owner));
            }
            let sums = |node: Option<NodeId>| {
                let mut sums = Accounts::default();
                for (_, owner) in model.values().filter(|(n, _)| *n == node) {
                    sums.total += 1;
                    *sums.slot(*owner) += 1;
                }
                sums
            };
            for (node, accounts) in map.nodes() {
                assert!(accounts.balanced());
                assert_eq!(accounts, sums(Some(node)));
            }
            assert_eq!(map.borrowed().map(|(_, a)| a).sum::<Accounts>(), sums(None));
            assert_eq!(map.accounts().total, 82, "what is borrowed is not the cell's");
        }
    }
    assert_eq!(fullest, 91, "the run never filled the machine");
    assert!(loans > 5, "pages came and went {loans} times");
    assert!(rows > 20 && ends > 10, "{rows} rows have changed hands, {ends} VMs have ended");
    assert_eq!(map.owner(Mpa(0x6fff_f000)), None);
    assert_eq!(map.owner(Mpa(0x9000_0000 + 40 * PAGE_SIZE)), None);
}

#[test]
fn low_pages_first_and_the_page_given_back_next() {
    let mut map = slice(0x9000_0000, 4);
    let owner = Owner::Monitor;
    let take = |map: &mut Memmap| map.take(NodeId(0), owner).map(|m| m.0);
    assert_eq!(take(&mut map), Some(0x9000_0000));
    assert_eq!(take(&mut map), Some(0x9000_1000));
    map.give(Mpa(0x9000_0000), owner);
    assert_eq!(take(&mut map), Some(0x9000_0000));
}

#[test]
fn another_node_of_the_cell_helps_out() {
    let regions = [
        region(0, Kind::Window, 0x7000_0000, 1),
        region(0, Kind::Slice, 0x9000_0000, 1),
        region(1, Kind::Slice, 0xa000_0000, 2),
    ];
    let mut map = Memmap::new(&regions, &[]).unwrap();
    map.add_borrowed(loan(1, 1), &[Run { start: Mpa(0xb000_0000), pages: 1 }]).unwrap();
    let mut take = || {
        let owner = Owner::Vm { vm: VmId(0), page: 0 };
        map.take_near(NodeId(0), owner).map(|mpa| mpa.0)
    };
    let taken: [_; 5] = core::array::from_fn(|_| take());
    let want = [0x9000_0000, 0x7000_0000, 0xa000_0000, 0xa000_1000].map(Some);
    assert_eq!((&taken[..4], taken[4]), (&want[..], None), "borrowed pages are not the cell's own");
}

#[test]
fn the_longest_free_runs_are_found_from_the_top_slices_first() {
    let regions = [
        region(0, Kind::Window, 0x7000_0000, 6),
        region(0, Kind::Slice, 0x9000_0000, 10),
        region(1, Kind::Slice, 0xa000_0000, 3),
    ];
    // Free in the slices: pages 0 to 2, 4, 6 to 9; all of node 1's.
    let page = |n: u64| Mpa(0x9000_0000 + n * PAGE_SIZE);
    let map = Memmap::new(&regions, &[page(3)..page(4), page(5)..page(6)]).unwrap();
    let found = |pages, most| {
        let run = |run: Run| (run.start.0, run.pages);
        map.free_runs(pages, most).into_iter().map(run).collect::<Vec<_>>()
    };
    assert_eq!(found(2, 4), [(0x9000_8000, 2)]);
    assert_eq!(found(4, 4), [(0x9000_6000, 4)]);
    assert_eq!(found(8, 4), [(0x9000_6000, 4), (0x9000_0000, 3), (0xa000_2000, 1)]);
    assert_eq!(found(100, 2), [(0x9000_6000, 4), (0x9000_0000, 3)], "no more runs than that");
    let all: u32 = found(100, 9).iter().map(|(_, pages)| pages).sum();
    assert_eq!(all, 17);
    assert_eq!(found(0, 4), []);
}

#[test]
fn an_audit_finds_each_kind_of_damage() {
    let vm = Owner::Vm { vm: VmId(0), page: 0 };
    let whole = || {
        let mut map = slice(0x9000_0000, 8);
        map.take(NodeId(0), vm).unwrap();
        map
    };
    assert_eq!(whole().audit(), Ok(()));
    let damaged = |index, word| {
        let mut map = whole();
        map.pools[0].1.damage(index, word);
        map.audit()
    };
    assert!(matches!(damaged(0, Word::MONITOR), Err(Violation::Sum { .. })));
    for word in [Word::free(2, 2), Word::free(2, NONE), Word::free(2, 1000), Word::free(3, 4)] {
        assert!(matches!(damaged(3, word), Err(Violation::List { .. })));
    }
    let nonsense = Word(u64::MAX);
    assert_eq!(damaged(3, nonsense), Err(Violation::Damaged { mpa: Mpa(0x9000_3000) }));
}

#[test]
#[should_panic(expected = "but belongs to Some(Monitor)")]
fn giving_back_another_owners_page_is_a_bug() {
    let mut map = slice(0x9000_0000, 8);
    let mpa = map.take(NodeId(0), Owner::Monitor).unwrap();
    map.give(mpa, Owner::Vm { vm: VmId(0), page: 0 });
}

/// What many pages are given back or changed as is checked of each of them.
#[test]
fn another_owners_page_among_many_is_found() {
    let vm = |page| Owner::Vm { vm: VmId(1), page };
    let lent = Owner::Lent { to: CellId(1), loan: 1 };
    let map = || {
        let mut map = slice(0x9000_0000, 8);
        let pages: Vec<(u32, Mpa)> =
            (0..4).map(|page| (page, map.take(NodeId(0), vm(page)).unwrap())).collect();
        (map, pages)
    };
    let row = Run { start: Mpa(0x9000_0000), pages: 4 };
    let refused = |change: &dyn Fn()| {
        let hook = std::panic::catch_unwind(core::panic::AssertUnwindSafe(change));
        hook.unwrap_err().downcast::<String>().is_ok_and(|why| why.contains("0x90003000 passes"))
    };
    assert!(refused(&|| {
        let (mut map, pages) = map();
        map.change(pages[3].1, vm(3), vm(2));
        map.give_all(VmId(1), pages.into_iter());
    }));
    for to in [Owner::Free, Owner::Quarantined { from: CellId(1), loan: 1 }] {
        for last in [Owner::Free, Owner::Lent { to: CellId(1), loan: 2 }] {
            assert!(refused(&|| {
                let (mut map, pages) = map();
                for (page, mpa) in pages {
                    map.change(mpa, vm(page), if page == 3 { last } else { lent });
                }
                map.change_run(row, lent, to);
            }));
        }
    }
    let mut map = map().0;
    map.give_all(VmId(1), (0..4).zip(row.iter()));
    assert_eq!((map.audit(), map.accounts().free), (Ok(()), 8));
    map.change_run(row, Owner::Free, lent);
    map.change_run(row, lent, Owner::Free);
    assert_eq!(map.audit(), Ok(()));
    let taken: Vec<_> = (0..8).filter_map(|page| map.take(NodeId(0), vm(page))).collect();
    assert!(taken.is_sorted() && taken.len() == 8, "the first of a row is the next to be taken");
}

#[test]
fn what_is_recorded_is_not_borrowed_and_what_is_used_not_given_back() {
    let mut map = slice(0x9000_0000, 8);
    let run = |page, pages| Run { start: Mpa(page), pages };
    for bad in [&[run(0x9000_7000, 2)][..], &[run(0x8fff_f000, 2)], &[run(0xa000_0000, 1); 2]] {
        assert_eq!(map.add_borrowed(loan(1, 1), bad), Err(Refusal::NotYours));
    }
    assert_eq!(map.borrowed().count(), 0);
    assert_eq!(map.remove_borrowed(loan(1, 1)), Err(Refusal::NoLoan));
    map.add_borrowed(loan(1, 1), &[run(0xa000_0000, 2)]).unwrap();
    let mpa = map.take_borrowed(CellId(1), Owner::Monitor).unwrap();
    assert_eq!(map.remove_borrowed(loan(1, 1)), Err(Refusal::InUse));
    map.lose(CellId(1));
    assert_eq!(map.take_borrowed(CellId(1), Owner::Monitor), None, "nothing of a dead cell's");
    assert_eq!(map.lost().count(), 1);
    map.give(mpa, Owner::Monitor);
    map.remove_lost();
    assert_eq!((map.lost().count(), map.owner(mpa)), (0, None));
}

#[test]
fn whoever_looks_from_outside_finds_each_piece_and_its_words() {
    let mut map = slice(0x9000_0000, 8);
    let directory: &'static Directory =
        std::boxed::Box::leak(std::boxed::Box::new(Directory::new()));
    map.publish(directory);
    let named = || Named::decode(&directory.words().collect::<Vec<_>>()).unwrap().pieces;
    let own = named();
    assert_eq!(
        own.iter().map(|(at, pages, _)| (*at, *pages)).collect::<Vec<_>>(),
        [(Mpa(0x9000_0000), 8)]
    );
    let loan = LoanId { lender: CellId(1), incarnation: 1, number: 1 };
    let run = |start, pages| Run { start: Mpa(start), pages };
    map.add_borrowed(loan, &[run(0xa000_0000, 2), run(0xa000_8000, 3)]).unwrap();
    let both = named();
    assert_eq!(both[0], own[0]);
    let (first, second) = (both[1], both[2]);
    assert_eq!((first.0, first.1, second.0, second.1), (Mpa(0xa000_0000), 2, Mpa(0xa000_8000), 3));
    assert_eq!(second.2 - first.2, 16, "the words of a pool follow each other");
    map.remove_borrowed(loan).unwrap();
    assert_eq!(named(), own);
}
