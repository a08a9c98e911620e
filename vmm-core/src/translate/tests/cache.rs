use super::*;
use crate::cpu::CpuModel;
use crate::endian::Endian;
use crate::mem::OwnPages;
use crate::translate::slot;

struct Nowhere;

impl CodeMemory for Nowhere {
    fn set(&mut self, _: usize, _: u32) {}
    fn rewrite(&mut self, _: usize) {}
    fn gone(&mut self, _: u64) {}
}

const LAYOUT: Layout = Layout {
    page: CKSSEG,
    table: CKSSEG + 0x4_0000,
    code: CKSSEG + 0x10_0000,
    main: Class::Cached,
    identity: false,
    model: CpuModel::honeycomb(),
};

#[test]
fn impossible_layouts_are_refused() {
    let words = CodeCache::MIN_WORDS;
    assert!(CodeCache::new(LAYOUT, words).is_some());
    assert!(CodeCache::new(LAYOUT, words - 1).is_none());
    for layout in [
        Layout { page: CKSSEG + 0x1000, ..LAYOUT },
        Layout { table: CKSSEG + 0x1_0000, ..LAYOUT },
        Layout { table: 0xffff_ffff_e000_0000, ..LAYOUT },
        Layout { code: CKSSEG + 0x0fff_fff0, ..LAYOUT },
        Layout { code: CKSSEG + 2, ..LAYOUT },
        Layout { page: 0, ..LAYOUT },
    ] {
        assert!(CodeCache::new(layout, words).is_none(), "{layout:x?}");
    }
}

#[test]
fn places_without_a_block_mean_nothing() {
    let cache = CodeCache::new(LAYOUT, CodeCache::MIN_WORDS).expect("possible");
    for address in [0, LAYOUT.code, LAYOUT.code - 4, LAYOUT.code + (1 << 20), u64::MAX, LAYOUT.page]
    {
        assert_eq!(cache.stand(address), None, "{address:#x}");
    }
}

/// A block of code that is all additions.
fn block(cache: &mut CodeCache, pc: u64) -> BlockId {
    let own = OwnPages::new(1).expect("memory for a page");
    let page = own.page(0).expect("the first");
    page.copy_in(0, &0x2421_0001u32.to_le_bytes().repeat(PAGE_SIZE as usize / 4));
    let source = Source { pc, page, next: None, endian: Endian::Little };
    cache.translate(
        &mut Nowhere,
        Key { pc, page: Gpa(0x5000), flags: 0 },
        source,
        &mut Values::new(&[0; 32]),
    )
}

#[test]
fn a_word_is_found_in_the_block_that_has_it() {
    let mut cache = CodeCache::new(LAYOUT, CodeCache::MIN_WORDS).expect("possible");
    let mut sizes = Vec::new();
    // Many small ones at the page's end, and large ones; more than find room.
    for pc in (0xc00..0x1000).step_by(4).chain((0xfc0..0x1000).step_by(4).cycle().take(400)) {
        let key = Key { pc, page: Gpa(0x5000), flags: 0 };
        if let Some(old) = cache.find(key) {
            cache.remove(&mut Nowhere, old);
        }
        let block = block(&mut cache, pc);
        let (start, (_, words)) = (cache.entry(block), cache.size(block));
        sizes.push(words);
        for at in (start..).step_by(4).take(words) {
            assert_eq!(cache.stand(at).map(|stand| stand.block), Some(block), "{at:#x}");
        }
        // What is behind it is another's, or nobody's.
        let behind = cache.stand(start + 4 * words as u64);
        assert!(behind.is_none_or(|stand| stand.block != block));
    }
    assert_eq!((sizes.iter().min(), sizes.iter().max()), (Some(&3), Some(&65)));
}

#[test]
fn an_access_is_learned_once_and_two_classes_are_mixed() {
    let mut cache = CodeCache::new(LAYOUT, CodeCache::MIN_WORDS).expect("possible");
    let (cached, compat) = (0x9800_0000_0000_1000, 0xffff_ffff_8000_1000);
    let (first, second) = (block(&mut cache, 0x1000), block(&mut cache, 0x1004));
    assert!(cache.note(first, 0x1010, cached));
    // The other block has the instruction too, and was made before that was known.
    assert!(cache.note(second, 0x1010, cached));
    let third = block(&mut cache, 0x1008);
    assert!(!cache.note(third, 0x1010, cached + 8));
    assert!(cache.note(third, 0x1010, compat));
    let fourth = block(&mut cache, 0x100c);
    assert!(!cache.note(fourth, 0x1010, cached));
    assert!(cache.note(fourth, 0x2000, 0x4000_0000_0000_0000));
    assert!(!cache.has_page(Gpa(0)) && !cache.invalidate(&mut Nowhere, Gpa(0)));
    assert_eq!(slot::constant(Class::Uncached), slot::constant(Class::Cached) + 8);
}

#[test]
fn a_block_with_its_last_slot_in_the_next_page_goes_with_either() {
    let own = OwnPages::new(2).expect("memory for two");
    let [page, behind] = [0, 1].map(|number| own.page(number).expect("one of two"));
    // bne $1, $0, -4; and additions behind it.
    page.copy_in(PAGE_SIZE - 4, &0x1420_fffcu32.to_le_bytes());
    behind.copy_in(0, &0x2421_0001u32.to_le_bytes().repeat(4));
    let mut cache = CodeCache::new(LAYOUT, CodeCache::MIN_WORDS).expect("possible");
    let start = 0xffff_ffff_8000_0000;
    let make = |cache: &mut CodeCache, number: u64, next: Option<Gpa>| {
        let pc = start + 0xff8 - 4 * number;
        let mut source = Source { pc, page, next: None, endian: Endian::Little };
        assert_eq!(source.beyond(), Some(start + PAGE_SIZE));
        source.next = next.map(|gpa| (behind, gpa));
        let key = Key { pc, page: Gpa(0x5000), flags: 0 };
        cache.translate(&mut Nowhere, key, source, &mut Values::new(&[0; 32]));
    };
    for written in [0x5000, 0x6000] {
        make(&mut cache, 0, Some(Gpa(0x6000)));
        make(&mut cache, 1, None);
        assert_eq!(cache.crossing(), 1);
        assert!(cache.has_page(Gpa(0x6000)) && !cache.has_page(Gpa(0x7000)));
        assert!(!cache.invalidate(&mut Nowhere, Gpa(0x7000)));
        assert!(cache.invalidate(&mut Nowhere, Gpa(written)));
        assert_eq!(cache.crossing(), 0);
        assert!(!cache.has_page(Gpa(0x6000)));
        cache.invalidate(&mut Nowhere, Gpa(0x5000));
    }
    // Where there are too many their last branches are the runtime's; when some have gone there is room again.
    for number in 0..20 {
        make(&mut cache, number, Some(Gpa(0x6000)));
    }
    let most = cache.crossing();
    assert!((1..20).contains(&most), "{most}");
    cache.invalidate(&mut Nowhere, Gpa(0x6000));
    assert_eq!(cache.crossing(), 0);
    make(&mut cache, 30, Some(Gpa(0x6000)));
    assert_eq!(cache.crossing(), 1);
    // Not where what is behind may be something else.
    for pc in [0xffff_ffff_c000_0ff8, 0xffff_ffff_bfff_fff8, 0xc000_0000_0000_0ff8, start] {
        let source = Source { pc, page, next: None, endian: Endian::Little };
        assert_eq!(source.beyond(), None, "{pc:#x}");
    }
}
