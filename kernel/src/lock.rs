//! The monitor's lock: a spin lock that knows its owner.
//!
//! A lock that its owner takes again, or whose holder is dead, must not become silence: both
//! panic with the lock's name, and the path that reports a panic breaks what it needs.

use crate::page::{cpu, park_if_told};
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU64, Ordering};

/// Nobody's.
const FREE: u64 = u64::MAX;

/// So often a CPU looks at a lock that is another's: a few seconds of its own computing, while locks are held for microseconds. Not a time,
/// since a host that lets its CPUs wait lets the holder wait with them.
const PATIENCE: u32 = 1 << 27;

/// Whether this CPU has been told to park is looked at so much less often.
const TOLD: u32 = 1 << 12;

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
    /// When this CPU holds it already, or nobody who still computes does: that would wait for ever.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let me = cpu();
        assert!(self.owner.load(Ordering::Relaxed) != me, "the lock `{}` taken twice", self.name);
        let inner = loop {
            match self.inner.try_lock() {
                Some(inner) => break inner,
                None => assert!(wait_for_lock(&self.inner), "the lock `{}` stays taken", self.name),
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

/// Waits while a lock is another's; whether it has become free. Memory that was overwritten may say for ever that it is not.
/// A function of its own, so that instructions spent here can be told from those that do something (docs/counting.md).
#[cold]
#[inline(never)]
fn wait_for_lock<T>(lock: &spin::mutex::SpinMutex<T>) -> bool {
    for look in 1..=PATIENCE {
        if !lock.is_locked() {
            return true;
        }
        if look % TOLD == 0 {
            park_if_told();
        }
        core::hint::spin_loop();
    }
    false
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
