//! How a store of one VCPU reaches the code that another has decoded.
//!
//! A bit for each page of RAM says that some VCPU keeps decoded code of it. While it is set, no VCPU has a
//! fast way to store there: a store to such a page is noticed, and *posted* to the others. Setting the bit
//! is posted too, and takes away the others' fast ways.
//!
//! Posts are read by each VCPU when it enters a page of code, at `sync`, SYNCI and CACHE, at every
//! poll, and before it runs directly; it says how far it has read. Code of a page is *trusted*, that is,
//! found without a further look when the page is entered again, only when every other VCPU that runs
//! has read all that was posted when it was decoded. Until then it is decoded anew at each entry.
//!
//! So this is guaranteed: let VCPU A store to an instruction, and then, in the order that memory has, VCPU
//! B learn of it (by a load, or an interrupt). From the next of the above moments on, B executes what A
//! stored. Only within one page, without any of them, the old instruction may be executed: at most
//! until the next poll. (An instruction that a real CPU executes directly is the real CPU's affair.)
//!
//! A VM that is in several cells has several of these ([`CodeMap::scatter`]), and its VCPUs verify what they
//! execute besides ([`super::wary`]).
//!
//! Order: a VCPU's number of posts read, and the count of posts, are written and read in one order that all
//! agree on (`SeqCst`): a VCPU that begins to run either sees a post or is seen to run by who posted it.

use crate::board::ram;
use crate::mem::Page;
use abi::{Gpa, PAGE_SHIFT};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::mutex::SpinMutex;

/// Posts that are kept for those who have not read them.
const KEPT: usize = 64;
/// A VCPU that does not run: it will have read everything before it does anything.
const RESTS: u64 = u64::MAX;

/// What a VCPU tells the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Post {
    /// Code of the page is kept from now on: stores to it are to be noticed.
    Executed(Page),
    /// The page has been, or will be, written anywhere.
    Written(Page),
    /// So many bytes of the page were written, from an offset on.
    WrittenAt(Page, u16, u8),
}

/// The pages of a VM, and the posts of its VCPUs.
#[derive(Debug)]
pub(crate) struct CodeMap {
    /// Bytes of RAM.
    memory: u64,
    /// A bit a page: code of it may be kept.
    executed: Box<[AtomicU64]>,
    /// How many posts there have been.
    posts: AtomicU64,
    log: SpinMutex<[Post; KEPT]>,
    /// By VCPU: how many of them it has read.
    read: Box<[AtomicU64]>,
    /// There are VCPUs that post elsewhere.
    scattered: AtomicBool,
}

impl CodeMap {
    /// Of a VM of so many bytes of RAM and VCPUs, none of which runs.
    pub fn new(memory: u64, vcpus: u32) -> Self {
        let words = (memory >> PAGE_SHIFT).div_ceil(64);
        Self {
            memory,
            executed: (0..words).map(|_| AtomicU64::new(0)).collect(),
            posts: AtomicU64::new(0),
            log: SpinMutex::new([Post::Written(Page::nowhere()); KEPT]),
            read: (0..vcpus).map(|_| AtomicU64::new(RESTS)).collect(),
            scattered: AtomicBool::new(false),
        }
    }

    fn place(&self, gpa: Gpa) -> Option<(&AtomicU64, u64)> {
        let page = ram::offset(gpa, self.memory)? >> PAGE_SHIFT;
        Some((self.executed.get((page / 64) as usize)?, 1 << (page % 64)))
    }

    /// How many posts there have been.
    #[inline]
    pub fn posts(&self) -> u64 {
        self.posts.load(Ordering::SeqCst)
    }

    /// VCPU `number` begins to run, having read so many.
    pub fn runs(&self, number: u32, read: u64) {
        if let Some(place) = self.read.get(number as usize) {
            place.store(read, Ordering::SeqCst);
        }
    }

    /// VCPU `number` has stopped.
    pub fn rests(&self, number: u32) {
        self.runs(number, RESTS);
    }

    /// Whether every VCPU but `number` has read `count` posts, or does not run.
    pub fn all_have_read(&self, count: u64, number: u32) -> bool {
        let mut others = self.read.iter().enumerate().filter(|(n, _)| *n != number as usize);
        others.all(|(_, read)| read.load(Ordering::SeqCst) >= count)
    }

    /// Tells all others; how many posts there are now.
    fn post(&self, post: Post) -> u64 {
        let mut log = self.log.lock();
        let count = self.posts.load(Ordering::Relaxed);
        log[count as usize % KEPT] = post;
        self.posts.store(count + 1, Ordering::SeqCst);
        count + 1
    }

    /// From now on there are VCPUs that post elsewhere, or no longer. All VCPUs here forget what they have decoded: from
    /// the next moment on at which they read posts they verify what they execute, or do not.
    pub fn scatter(&self, scattered: bool) {
        let _log = self.log.lock();
        if self.scattered.swap(scattered, Ordering::SeqCst) != scattered {
            // More than are kept.
            self.posts.fetch_add(KEPT as u64 + 1, Ordering::SeqCst);
        }
    }

    /// Whether there are VCPUs that post elsewhere. To be asked after [`CodeMap::posts`] or
    /// [`CodeMap::since`]: who has read the posts that came with a change then knows of it.
    pub fn is_scattered(&self) -> bool {
        self.scattered.load(Ordering::SeqCst)
    }

    /// The posts from number `from` on, up to now, and how many there are now altogether. `None` in place of
    /// the posts: some are no longer kept.
    pub fn since(&self, from: u64) -> (Option<([Post; KEPT], usize)>, u64) {
        let log = self.log.lock();
        let count = self.posts.load(Ordering::Relaxed);
        let new = count.saturating_sub(from) as usize;
        if new > KEPT {
            return (None, count);
        }
        let mut posts = [Post::Written(Page::nowhere()); KEPT];
        for (place, number) in posts.iter_mut().zip(from..count) {
            *place = log[number as usize % KEPT];
        }
        (Some((posts, new)), count)
    }

    /// Whether code of the page at `gpa` may be kept.
    pub fn is_executed(&self, gpa: Gpa) -> bool {
        self.place(gpa).is_some_and(|(word, bit)| word.load(Ordering::SeqCst) & bit != 0)
    }

    /// Code of `page`, at `gpa`, is kept from now on; how many posts the others must have read for it to be
    /// trusted.
    pub fn executed(&self, gpa: Gpa, page: Page) -> u64 {
        let Some((word, bit)) = self.place(gpa) else { return 0 };
        if word.fetch_or(bit, Ordering::SeqCst) & bit == 0 {
            self.post(Post::Executed(page))
        } else {
            self.posts()
        }
    }

    /// A VCPU that keeps no code of `page`, at `gpa`, stores there, from now on without notice.
    pub fn opened(&self, gpa: Gpa, page: Page) {
        if let Some((word, bit)) = self.place(gpa)
            && word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
        {
            self.post(Post::Written(page));
        }
    }

    /// A VCPU that keeps code of `page`, at `gpa`, itself has stored there.
    pub fn written(&self, gpa: Gpa, page: Page, offset: u64, size: u64) {
        if self.is_executed(gpa) {
            let offset = offset % abi::PAGE_SIZE;
            self.post(Post::WrittenAt(page, offset as u16, size as u8));
        }
    }
}
