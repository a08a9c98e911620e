//! Several processes in one address space, and what others must never see of it.

use crate::checks::{Own, report};
use crate::sys;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use irix_user::expected::{SHARE_MEMBERS, SHARE_ROUNDS};
use irix_user::work::{Heap, PAGE_WORDS};

/// Counted up by atomic additions.
static COUNTER: AtomicU64 = AtomicU64::new(0);
/// Counted up under [`LOCK`], by plain loads and stores.
static PLAIN: AtomicU64 = AtomicU64::new(0);
static LOCK: AtomicBool = AtomicBool::new(false);
/// What the member that follows orders is to do: nothing, end, or fill a page.
static ORDER: AtomicU64 = AtomicU64::new(NOTHING);
/// Written all the time by the member that follows orders.
static WORD: AtomicU64 = AtomicU64::new(0);

const NOTHING: u64 = 0;
const END: u64 = 1;

/// How often copies are looked at, and pages taken away.
const TIMES: u64 = 8;
/// Pages of the heap that come and go, and of a member's stack.
const PAGES: i64 = 8;
const STACK_PAGES: i64 = 2;

extern "C" fn counter(_: u64) -> ! {
    for _ in 0..SHARE_ROUNDS {
        COUNTER.fetch_add(1, Ordering::Relaxed);
        while LOCK.swap(true, Ordering::Acquire) {
            sys::give_way();
        }
        PLAIN.store(PLAIN.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        LOCK.store(false, Ordering::Release);
    }
    sys::exit(0)
}

extern "C" fn follower(_: u64) -> ! {
    loop {
        // Where there is one CPU for all, the others need it too.
        if WORD.fetch_add(1, Ordering::Relaxed) % 256 == 0 {
            sys::give_way();
        }
        match ORDER.load(Ordering::Acquire) {
            NOTHING => {}
            END => sys::exit(0),
            page => {
                // SAFETY: the one who orders has given a page's address, and waits.
                unsafe { (page as *mut [u64; PAGE_WORDS]).write_volatile([!0; PAGE_WORDS]) };
                ORDER.store(NOTHING, Ordering::Release);
            }
        }
    }
}

/// Starts a member.
fn start(own: &mut Own, entry: extern "C" fn(u64) -> !) -> u32 {
    own.grow(STACK_PAGES);
    let stack = own.words().as_ptr_range().end as u64;
    sys::sproc(entry, stack, 0)
}

/// The check.
pub fn main() -> u32 {
    let mut own = Own::new();
    let members =
        core::array::from_fn::<_, { SHARE_MEMBERS as usize }, _>(|_| start(&mut own, counter));
    let mut errors: u64 = members.map(sys::status).iter().map(|&status| u64::from(status)).sum();
    errors += u64::from(PLAIN.load(Ordering::Relaxed) != COUNTER.load(Ordering::Relaxed));

    // A copy of the space does not change, however often the member that goes on in the original writes:
    // its CPU must know that the page is to be copied now.
    let member = start(&mut own, follower);
    for _ in 0..TIMES {
        let before = WORD.load(Ordering::Relaxed);
        while WORD.load(Ordering::Relaxed) == before {
            sys::give_way();
        }
        let child = sys::child(|| {
            let seen = WORD.load(Ordering::Relaxed);
            (0..20_000).filter(|_| WORD.load(Ordering::Relaxed) != seen).count().min(1) as u32
        });
        errors += u64::from(sys::status(child));
    }
    // Pages that were given back and come again are new ones, for the member too.
    for _ in 0..TIMES {
        own.grow(PAGES);
        let end = own.words().len();
        for page in 1..=PAGES as usize {
            let page = &raw mut own.words()[end - page * PAGE_WORDS];
            ORDER.store(page as u64, Ordering::Release);
            while ORDER.load(Ordering::Acquire) != NOTHING {
                sys::give_way();
            }
        }
        let all = |words: &mut [u64], is: u64| words.iter().filter(|word| **word != is).count();
        let first = end - PAGES as usize * PAGE_WORDS;
        errors += all(&mut own.words()[first..], !0) as u64;
        own.grow(-PAGES);
        own.grow(PAGES);
        errors += all(&mut own.words()[first..], 0) as u64;
        own.grow(-PAGES);
    }
    ORDER.store(END, Ordering::Release);
    errors += u64::from(sys::status(member));
    report("share", COUNTER.load(Ordering::Relaxed).wrapping_sub(errors))
}
