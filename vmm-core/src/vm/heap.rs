//! What a VM takes of the heap of whoever runs it, and who may have heap for translation.
//!
//! A VM that lacks heap for its translated code is only slower; one that lacks heap for the rest does not start.
//! So VMs that leave the choice open have their translation from a [`Pool`]: what is left over when the owner has
//! kept as much as all VMs may need for the rest.

use super::Engine;
use crate::cpu::CODE_PAGE_HEAP;
use crate::direct::{L2TLB_SIZE, translation_heap};
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
/// as much for the devices. ([`Engine::Translator`]: kernel mode is translated indeed.)
#[must_use]
pub const fn heap_needed(memory: u64, vcpus: u32, engine: Engine) -> usize {
    const SMALL: usize = 1 << 19;
    let pages = code_pages(memory, vcpus);
    let translated = if matches!(engine, Engine::Translator) { translation_heap(pages) } else { 0 };
    let each = pages * CODE_PAGE_HEAP + 2 * L2TLB_SIZE + SMALL + translated;
    SMALL + vcpus as usize * each
}

/// No engine allocates more bytes than these at once: its code cache has 2 MB.
pub const PIECE: usize = 4 << 20;

/// Heap for the translation of VMs that can do without.
#[derive(Debug)]
pub struct Pool(Arc<AtomicUsize>);

/// A part of a [`Pool`], given back when it is dropped.
#[derive(Debug)]
pub struct Grant {
    bytes: usize,
    left: Arc<AtomicUsize>,
}

impl Pool {
    /// So many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Bytes that nobody has.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Option<Grant> {
        let less = |left: usize| left.checked_sub(bytes);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        taken.then(|| Grant { bytes, left: Arc::clone(&self.0) })
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
    /// Whether its kernel mode is something to translate: not of a kernel that is linked in a supervisor segment.
    pub translatable: bool,
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

    /// Heap that it must have at least to be started, in bytes.
    #[must_use]
    pub const fn least(&self) -> usize {
        let insists = matches!(self.engine, config::Engine::Translator) && self.is_translated();
        let engine = if insists { Engine::Translator } else { Engine::Direct };
        heap_needed(self.memory, self.vcpus, engine)
    }

    /// Heap that it can make use of, in bytes.
    #[must_use]
    pub const fn most(&self) -> usize {
        let engine = if self.is_translated() { Engine::Translator } else { Engine::Direct };
        heap_needed(self.memory, self.vcpus, engine)
    }

    /// How it is run by an owner whose heap is told by `has`: whether so many bytes are left, in pieces of
    /// [`PIECE`].
    ///
    /// # Errors
    /// It can't be: what is missing.
    pub fn admit(&self, pool: &Pool, has: impl Fn(usize) -> bool) -> Result<Admission, Lack> {
        let (least, most) = (self.least(), self.most());
        if !has(least) {
            return Err(Lack { needed: least, left: None });
        }
        let (mut grant, mut lack) = (None, None);
        if most > least {
            let (needed, left) = (most - least, pool.left());
            // (Whether there is that much is asked first: a grant is for whoever uses it.)
            grant = has(most).then(|| pool.take(needed)).flatten();
            lack = grant.is_none().then_some(Lack { needed, left: Some(left) });
        }
        let engine = match self.engine {
            config::Engine::Interpreter => Engine::Interpreter,
            _ if self.is_translated() && lack.is_none() => Engine::Translator,
            _ => Engine::Direct,
        };
        Ok(Admission { engine, grant, lack })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Engine as Wish;

    const MB: usize = 1 << 20;

    fn stock(engine: Wish) -> Candidate {
        Candidate { engine, translatable: true, memory: 64 << 20, vcpus: 1 }
    }

    /// Engine, whether there is a grant, and whether heap is lacking.
    fn admitted(candidate: Candidate, pool: &Pool, piece: usize) -> Option<(Engine, bool, bool)> {
        let admission = candidate.admit(pool, |bytes| bytes <= piece).ok()?;
        Some((admission.engine, admission.grant.is_some(), admission.lack.is_some()))
    }

    #[test]
    fn who_leaves_it_open_is_translated_where_there_is_heap() {
        let (auto, much) = (stock(Wish::Auto), 64 * MB);
        assert!(auto.most() > auto.least() + 4 * MB);
        let translation = auto.most() - auto.least();
        let pool = Pool::new(2 * translation + MB);
        let one = auto.admit(&pool, |_| true).unwrap();
        assert_eq!((one.engine, pool.left()), (Engine::Translator, translation + MB));
        let two = auto.admit(&pool, |_| true).unwrap();
        assert_eq!((two.engine, two.lack, pool.left()), (Engine::Translator, None, MB));
        let three = auto.admit(&pool, |_| true).unwrap();
        let lack = Lack { needed: translation, left: Some(MB) };
        assert_eq!((three.engine, three.lack), (Engine::Direct, Some(lack)));
        assert!(three.grant.is_none());
        drop(one);
        assert_eq!(admitted(auto, &pool, much), Some((Engine::Translator, true, false)));
        assert_eq!(pool.left(), translation + MB, "it was dropped, too");
    }

    #[test]
    fn the_pool_never_keeps_anybody_from_starting() {
        let auto = stock(Wish::Auto);
        for (bytes, piece) in
            [(0, 64 * MB), (64 * MB, auto.least()), (64 * MB, auto.most() - 1), (1, auto.least())]
        {
            let pool = Pool::new(bytes);
            let (engine, lacks) = (Engine::Direct, true);
            assert_eq!(admitted(auto, &pool, piece), Some((engine, false, lacks)), "{bytes}");
            assert_eq!(pool.left(), bytes);
        }
        let lack = auto.admit(&Pool::new(64 * MB), |bytes| bytes < auto.least()).unwrap_err();
        assert_eq!(lack, Lack { needed: auto.least(), left: None });
    }

    #[test]
    fn who_insists_has_it_or_does_not_start() {
        let (translator, none) = (stock(Wish::Translator), Pool::new(0));
        let most = stock(Wish::Auto).most();
        assert_eq!(admitted(translator, &none, most), Some((Engine::Translator, false, false)));
        assert_eq!(admitted(translator, &none, most - 1), None);
    }

    #[test]
    fn who_has_nothing_to_translate_needs_nothing_for_it() {
        let pool = Pool::new(64 * MB);
        let least = stock(Wish::Direct).least();
        for (wish, engine) in [
            (Wish::Auto, Engine::Direct),
            (Wish::Translator, Engine::Direct),
            (Wish::Direct, Engine::Direct),
            (Wish::Interpreter, Engine::Interpreter),
        ] {
            let linked = Candidate { translatable: false, ..stock(wish) };
            assert_eq!(admitted(linked, &pool, least), Some((engine, false, false)));
        }
        for (wish, engine) in
            [(Wish::Direct, Engine::Direct), (Wish::Interpreter, Engine::Interpreter)]
        {
            assert_eq!(admitted(stock(wish), &pool, least), Some((engine, false, false)));
        }
        assert_eq!(pool.left(), 64 * MB);
    }
}
