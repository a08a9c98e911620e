//! What a VM takes of the heap of whoever runs it, and who may have heap for translation.
//!
//! A VM that lacks heap for its translated code is only slower; one that lacks heap for the rest does not start.
//! So VMs that leave the choice open have their translation from a [`Pool`]: what is left over when the owner has
//! kept as much as all VMs may need for the rest.

use super::Engine;
use crate::cpu::CODE_PAGE_HEAP;
pub use crate::direct::CODE_WORDS;
use crate::direct::{L2TLB_SIZE, code_words, translation_heap};
use abi::{PAGE_SIZE, config};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Decoded pages that each VCPU of a VM of `memory` bytes keeps: together one for each 32 pages, within
/// bounds. What a small VM executes is small too; beyond 4 MB of them the stock kernel gains nothing.
pub(super) const fn code_pages(memory: u64, vcpus: u32) -> usize {
    let pages = memory / PAGE_SIZE / 32 / if vcpus == 0 { 1 } else { vcpus as u64 };
    if pages < 32 {
        32
    } else if pages > 512 {
        512
    } else {
        pages as usize
    }
}

/// Heap that a VM of so many bytes of memory and VCPUs takes at most, in bytes: for each VCPU its decoded
/// pages, the L2TLB where it finds its alignment, and half a megabyte for TLB and cached translations; and
/// as much for the devices. `code`: its kernel mode is translated, with at most so many words of code a VCPU.
const fn heap_needed(memory: u64, vcpus: u32, code: Option<usize>) -> usize {
    const SMALL: usize = 1 << 19;
    let pages = code_pages(memory, vcpus);
    let translated = match code {
        Some(most) => translation_heap(code_words(pages, most)),
        None => 0,
    };
    let each = pages * CODE_PAGE_HEAP + 2 * L2TLB_SIZE + SMALL + translated;
    SMALL + vcpus as usize * each
}

/// No engine allocates more bytes than these at once: the largest code cache has 4 MB.
pub const PIECE: usize = 5 << 20;

/// Heap for the translation of VMs that can do without, or with less.
#[derive(Debug)]
pub struct Pool {
    left: Arc<AtomicUsize>,
    /// Words of code that each VCPU may have: so many that all find room for theirs.
    code_words: usize,
    /// All who can be translated find room for that.
    enough: bool,
}

/// A part of a [`Pool`], given back when it is dropped.
#[derive(Debug)]
pub struct Grant {
    bytes: usize,
    left: Arc<AtomicUsize>,
}

impl Pool {
    /// Of so many bytes of heap, which VMs need `kept` of at all costs; with so many words of [`CODE_WORDS`] they need all
    /// together what `wanted` says.
    #[must_use]
    pub fn new(bytes: u64, kept: u64, wanted: [u64; CODE_WORDS.len()]) -> Self {
        let [.., small] = CODE_WORDS;
        let fits = |(_, wanted): &(usize, u64)| *wanted <= bytes;
        let code_words =
            CODE_WORDS.into_iter().zip(wanted).find(fits).map_or(small, |(words, _)| words);
        let left = usize::try_from(bytes.saturating_sub(kept)).unwrap_or(usize::MAX);
        let enough = wanted.last().is_some_and(|least| *least <= bytes);
        Self { left: Arc::new(AtomicUsize::new(left)), code_words, enough }
    }

    /// Bytes that nobody has.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Option<Grant> {
        let less = |left: usize| left.checked_sub(bytes);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        taken.then(|| Grant { bytes, left: Arc::clone(&self.left) })
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// How a VM can be run.
#[derive(Debug)]
pub struct Admission {
    /// What may execute its instructions.
    pub engine: Engine,
    /// Most words of translated code that each VCPU keeps.
    pub code_words: usize,
    /// What it has of the pool, as long as it lives.
    pub grant: Option<Grant>,
    /// It would be translated if there were heap.
    pub lack: Option<Lack>,
}

/// Heap that is not there, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What is needed …
    pub needed: usize,
    /// … and how much there is for that, if it is known.
    pub left: Option<usize>,
}

/// What a VM is, to whoever decides how it is run.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// What was asked for.
    pub engine: config::Engine,
    /// Whether its kernel mode can be translated.
    pub translatable: bool,
    /// Its kernel is linked in a supervisor segment: it runs well without being translated, and is so only where all
    /// find room for that.
    pub linked: bool,
    /// Bytes of RAM.
    pub memory: u64,
    /// VCPUs to be run here.
    pub vcpus: u32,
}

impl Candidate {
    /// Whether it is to be translated, if that can be.
    const fn is_translated(&self) -> bool {
        use config::Engine::{Auto, Translator};
        self.translatable && matches!(self.engine, Auto | Translator)
    }

    /// Whether it does not start where it can't be translated.
    const fn insists(&self) -> bool {
        matches!(self.engine, config::Engine::Translator) && self.is_translated() && !self.linked
    }

    /// Heap that it must have at least to be started, in bytes.
    #[must_use]
    pub const fn least(&self) -> usize {
        let [.., small] = CODE_WORDS;
        heap_needed(self.memory, self.vcpus, if self.insists() { Some(small) } else { None })
    }

    /// Heap that it can make use of if each VCPU may keep so many words of translated code, in bytes.
    #[must_use]
    pub const fn most(&self, code_words: usize) -> usize {
        let code = if self.is_translated() { Some(code_words) } else { None };
        heap_needed(self.memory, self.vcpus, code)
    }

    /// How it is run by an owner whose heap is told by `has`: whether so many bytes are left, in pieces of
    /// [`PIECE`].
    ///
    /// # Errors
    /// It can't be: what is missing.
    pub fn admit(&self, pool: &Pool, has: impl Fn(usize) -> bool) -> Result<Admission, Lack> {
        let [.., small] = CODE_WORDS;
        let least = self.least();
        if !has(least) {
            return Err(Lack { needed: least, left: None });
        }
        let admission = |engine| Admission { engine, code_words: small, grant: None, lack: None };
        if !self.is_translated() {
            let interpreted = matches!(self.engine, config::Engine::Interpreter);
            return Ok(admission(if interpreted { Engine::Interpreter } else { Engine::Direct }));
        }
        for code_words in [pool.code_words, small] {
            if self.linked && !pool.enough {
                break;
            }
            let needed = self.most(code_words) - least;
            // (Whether there is that much is asked first: a grant is for whoever uses it. Who insists has the last one.)
            if has(least + needed)
                && let Some(grant) = pool.take(needed)
            {
                let grant = Some(grant);
                return Ok(Admission { code_words, grant, ..admission(Engine::Translator) });
            }
        }
        let lack = Lack { needed: self.most(small) - least, left: Some(pool.left()) };
        Ok(Admission { lack: (!self.linked).then_some(lack), ..admission(Engine::Direct) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Engine as Wish;

    const MB: usize = 1 << 20;
    const LARGE: usize = CODE_WORDS[0];
    const USUAL: usize = CODE_WORDS[1];
    const SMALL: usize = CODE_WORDS[2];

    fn stock(engine: Wish) -> Candidate {
        Candidate { engine, translatable: true, linked: false, memory: 64 << 20, vcpus: 1 }
    }

    /// So many bytes for translation, in caches of so many words at most.
    fn pool(bytes: usize, code_words: usize) -> Pool {
        Pool { left: Arc::new(AtomicUsize::new(bytes)), code_words, enough: true }
    }

    /// What translating a stock VM takes.
    fn translation(code_words: usize) -> usize {
        let auto = stock(Wish::Auto);
        auto.most(code_words) - auto.least()
    }

    /// Engine and words of code, whether there is a grant, and whether heap is lacking.
    fn admitted(
        candidate: Candidate,
        pool: &Pool,
        bytes: usize,
    ) -> Option<(Engine, usize, bool, bool)> {
        let Admission { engine, code_words, grant, lack } =
            candidate.admit(pool, |needed| needed <= bytes).ok()?;
        Some((engine, code_words, grant.is_some(), lack.is_some()))
    }

    #[test]
    fn who_leaves_it_open_is_translated_where_there_is_heap() {
        let auto = stock(Wish::Auto);
        assert!(translation(LARGE) > translation(USUAL) + 4 * MB);
        assert!(translation(USUAL) > translation(SMALL) + 2 * MB);
        let pool = pool(translation(USUAL) + translation(SMALL) + MB, USUAL);
        let one = auto.admit(&pool, |_| true).unwrap();
        assert_eq!((one.engine, one.code_words, one.lack), (Engine::Translator, USUAL, None));
        assert_eq!(pool.left(), translation(SMALL) + MB);
        let two = auto.admit(&pool, |_| true).unwrap();
        assert_eq!((two.engine, two.code_words, two.lack), (Engine::Translator, SMALL, None));
        let three = auto.admit(&pool, |_| true).unwrap();
        let lack = Lack { needed: translation(SMALL), left: Some(MB) };
        assert_eq!((three.engine, three.lack), (Engine::Direct, Some(lack)));
        assert!(three.grant.is_none());
        drop(one);
        let again = admitted(auto, &pool, 64 * MB);
        assert_eq!(again, Some((Engine::Translator, USUAL, true, false)));
        assert_eq!(pool.left(), translation(USUAL) + MB, "it was dropped, too");
    }

    #[test]
    fn the_pool_never_keeps_anybody_from_starting() {
        let auto = stock(Wish::Auto);
        let least = auto.least();
        for (bytes, has) in
            [(0, 64 * MB), (64 * MB, least), (64 * MB, auto.most(SMALL) - 1), (1, least)]
        {
            let pool = pool(bytes, LARGE);
            let (engine, words) = (Engine::Direct, SMALL);
            assert_eq!(admitted(auto, &pool, has), Some((engine, words, false, true)), "{bytes}");
            assert_eq!(pool.left(), bytes);
        }
        let lack = auto.admit(&pool(64 * MB, LARGE), |bytes| bytes < least).unwrap_err();
        assert_eq!(lack, Lack { needed: least, left: None });
    }

    #[test]
    fn who_insists_is_translated_or_does_not_start() {
        let (translator, small) = (stock(Wish::Translator), stock(Wish::Auto).most(SMALL));
        let nothing = pool(0, LARGE);
        let all = Some((Engine::Translator, SMALL, true, false));
        assert_eq!(admitted(translator, &nothing, 64 * MB), all);
        assert_eq!(admitted(translator, &nothing, small), all);
        assert_eq!(admitted(translator, &nothing, small - 1), None);
        let more = Some((Engine::Translator, LARGE, true, false));
        assert_eq!(admitted(translator, &pool(64 * MB, LARGE), 64 * MB), more);
    }

    #[test]
    fn who_runs_well_without_is_translated_where_all_find_room() {
        for wish in [Wish::Auto, Wish::Translator] {
            let linked = Candidate { linked: true, ..stock(wish) };
            let most = linked.most(SMALL);
            let mut pool = pool(64 * MB, SMALL);
            let all = Some((Engine::Translator, SMALL, true, false));
            assert_eq!(admitted(linked, &pool, most), all);
            let not = Some((Engine::Direct, SMALL, false, false));
            assert_eq!(admitted(linked, &pool, most - 1), not);
            pool.enough = false;
            assert_eq!(admitted(linked, &pool, most), not);
        }
        let [large, small] = [59, 39].map(|bytes| Pool::new(bytes, 10, [100, 60, 40]).enough);
        assert!(large && !small);
    }

    #[test]
    fn who_has_nothing_to_translate_needs_nothing_for_it() {
        let pool = pool(64 * MB, LARGE);
        let least = stock(Wish::Direct).least();
        for (wish, translatable, engine) in [
            (Wish::Auto, false, Engine::Direct),
            (Wish::Translator, false, Engine::Direct),
            (Wish::Direct, false, Engine::Direct),
            (Wish::Interpreter, false, Engine::Interpreter),
            (Wish::Direct, true, Engine::Direct),
            (Wish::Interpreter, true, Engine::Interpreter),
        ] {
            let candidate = Candidate { translatable, ..stock(wish) };
            assert_eq!(admitted(candidate, &pool, least), Some((engine, SMALL, false, false)));
        }
        assert_eq!(pool.left(), 64 * MB);
    }

    #[test]
    fn all_have_caches_of_the_size_for_which_there_is_room() {
        let wanted = [100, 60, 40];
        for (bytes, words, left) in
            [(120, LARGE, 110), (100, LARGE, 90), (99, USUAL, 89), (59, SMALL, 49), (5, SMALL, 0)]
        {
            let pool = Pool::new(bytes, 10, wanted);
            assert_eq!((pool.code_words, pool.left()), (words, left));
        }
    }
}
