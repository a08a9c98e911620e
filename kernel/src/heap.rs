//! The monitor's heap, in memory of its own cell.

use crate::careful::xkphys;
use crate::lock::Lock;
use abi::Mpa;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use linked_list_allocator::Heap;

struct Allocator(Lock<Heap>);

#[global_allocator]
static HEAP: Allocator = Allocator(Lock::new("heap", Heap::empty()));

// SAFETY: `Heap` hands out disjoint blocks of memory that is its alone, under the lock.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if let Some(ptr) = NonNull::new(ptr) {
            // SAFETY: the caller got `ptr` from `alloc` with this layout.
            unsafe { self.0.lock().deallocate(ptr, layout) };
        }
    }
}

/// Gives the heap its memory.
///
/// # Safety
/// Called once, with RAM that nothing else uses.
pub(crate) unsafe fn init(base: Mpa, len: u64) {
    // SAFETY: the caller gives the memory away; XKPHYS reaches it without a TLB entry.
    unsafe { HEAP.0.lock().init(xkphys(base) as *mut u8, len as usize) };
}

/// Bytes in use, and bytes in all.
pub(crate) fn usage() -> (usize, usize) {
    let heap = HEAP.0.lock();
    (heap.used(), heap.size())
}

/// Makes the heap usable for the report of a panic that came while it was locked.
///
/// # Safety
/// As for [`Lock::break_open`].
pub(crate) unsafe fn break_open() {
    // SAFETY: the caller answers for it.
    unsafe { HEAP.0.break_open() };
}
