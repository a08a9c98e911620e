//! The monitor's lock: a spin lock that knows its owner.
//!
//! A lock that its owner takes again, or whose holder is dead, must not become silence: the former
//! panics with the lock's name, and the path that reports a panic breaks what it needs.

use crate::page::cpu;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU64, Ordering};

/// Nobody's.
const FREE: u64 = u64::MAX;

/// A value that one CPU at a time may use. Never taken by interrupt handlers.
pub(crate) struct Lock<T> {
    inner: spin::mutex::SpinMutex<T>,
    owner: AtomicU64,
    name: &'static str,
}

impl<T> Lock<T> {
    /// A free lock; the name is for its owner's epitaph.
    pub(crate) const fn new(name: &'static str, value: T) -> Self {
        Self { inner: spin::mutex::SpinMutex::new(value), owner: AtomicU64::new(FREE), name }
    }

    /// Takes the lock, waiting for another CPU to release it.
    ///
    /// # Panics
    /// When this CPU holds it already: that would wait for ever.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let me = cpu();
        assert!(self.owner.load(Ordering::Relaxed) != me, "the lock `{}` taken twice", self.name);
        let inner = loop {
            match self.inner.try_lock() {
                Some(inner) => break inner,
                None => wait_for_lock(&self.inner),
            }
        };
        self.owner.store(me, Ordering::Relaxed);
        Guard { inner, owner: &self.owner }
    }

    /// Frees the lock whoever holds it.
    ///
    /// # Safety
    /// The holder never uses the value again: only for a machine that is about to be ended.
    pub(crate) unsafe fn break_open(&self) {
        self.owner.store(FREE, Ordering::Relaxed);
        // SAFETY: the caller answers for the holder.
        unsafe { self.inner.force_unlock() };
    }
}

/// Waits while a lock is another's. A function of its own, so that instructions spent here can be told from those that
/// do something (docs/counting.md).
#[cold]
#[inline(never)]
fn wait_for_lock<T>(lock: &spin::mutex::SpinMutex<T>) {
    while lock.is_locked() {
        core::hint::spin_loop();
    }
}

/// The lock, held.
pub(crate) struct Guard<'a, T> {
    inner: spin::mutex::SpinMutexGuard<'a, T>,
    owner: &'a AtomicU64,
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // Before the inner guard's release, so that the next owner's mark is not overwritten.
        self.owner.store(FREE, Ordering::Relaxed);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
