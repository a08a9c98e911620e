//! The calls that wait for the line to one cell.

use super::line::Packet;
use super::request::Vcpu;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

/// What an outstanding call is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// Nothing: none is outstanding.
    #[default]
    Nobody,
    /// The cell's own call.
    Cell(u32),
    /// The offer of a VCPU.
    Offer(Vcpu),
    /// A VCPU that was given away.
    Take(Vcpu),
    /// An entry of the outbox.
    Outbox,
}

/// A queue whose packets are written and read where they lie: most of a packet's words don't count, and
/// moving it would copy them all.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    /// A ring; what is in it beyond the queue has been.
    slots: Vec<(Origin, Packet)>,
    first: usize,
    len: usize,
}

impl Calls {
    /// Has room for so many from now on.
    pub fn reserve(&mut self, room: usize) {
        self.slots.reserve_exact(room);
    }

    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a call behind the others; its packet is for the caller to write.
    pub fn push_back(&mut self, origin: Origin) -> &mut Packet {
        self.grow();
        let at = self.at(self.len);
        self.len += 1;
        self.put(at, origin)
    }

    /// Adds a call before the others; its packet is for the caller to write.
    pub fn push_front(&mut self, origin: Origin) -> &mut Packet {
        self.grow();
        self.first = self.at(self.slots.len() - 1);
        self.len += 1;
        self.put(self.first, origin)
    }

    /// Takes the first call out.
    pub fn pop_front(&mut self) -> Option<(Origin, &Packet)> {
        if self.len == 0 {
            return None;
        }
        let at = self.first;
        self.first = self.at(1);
        self.len -= 1;
        let (origin, packet) = &self.slots[at];
        Some((*origin, packet))
    }

    /// Where the `n`th of the queue is or would be; `n` is at most the ring's size.
    const fn at(&self, n: usize) -> usize {
        let (at, size) = (self.first + n, self.slots.len());
        if at < size { at } else { at - size }
    }

    /// Makes sure that one more fits into the ring.
    fn grow(&mut self) {
        if self.len == self.slots.len() {
            self.slots.rotate_left(self.first);
            self.first = 0;
            self.slots.push(Default::default());
        }
    }

    fn put(&mut self, at: usize, origin: Origin) -> &mut Packet {
        let slot = &mut self.slots[at];
        slot.0 = origin;
        &mut slot.1
    }

    fn iter(&self) -> impl Iterator<Item = &(Origin, Packet)> {
        (0..self.len).map(|n| &self.slots[self.at(n)])
    }
}

impl PartialEq for Calls {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Calls {}

impl Hash for Calls {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.len.hash(hasher);
        self.iter().for_each(|call| call.hash(hasher));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn it_is_a_queue() {
        let mut calls = Calls::default();
        let mut naive = VecDeque::new();
        let mut seed = 1u64;
        for n in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let word = [n];
            match seed >> 60 {
                0..6 if calls.len() < 9 => {
                    calls.push_back(Origin::Cell(n as u32)).set(1, &word);
                    naive.push_back((Origin::Cell(n as u32), Packet::new(1, &word)));
                }
                6..8 if calls.len() < 9 => {
                    calls.push_front(Origin::Outbox).set(2, &word);
                    naive.push_front((Origin::Outbox, Packet::new(2, &word)));
                }
                _ => {
                    let popped = calls.pop_front().map(|(origin, packet)| (origin, *packet));
                    assert_eq!(popped, naive.pop_front());
                }
            }
            assert!(calls.iter().eq(naive.iter()), "step {n}");
            assert_eq!((calls.len(), calls.is_empty()), (naive.len(), naive.is_empty()));
        }
        assert!(calls.slots.len() <= 9);
    }

    #[test]
    fn what_has_been_makes_no_difference() {
        let hash = |calls: &Calls| {
            let mut hasher = std::hash::DefaultHasher::new();
            calls.hash(&mut hasher);
            hasher.finish()
        };
        let (mut a, mut b) = (Calls::default(), Calls::default());
        a.push_back(Origin::Outbox).set(9, &[1, 2, 3]);
        a.pop_front();
        assert_eq!((&a, hash(&a)), (&b, hash(&b)));
        a.push_back(Origin::Outbox).set(1, &[7]);
        assert_ne!(a, b);
        b.push_front(Origin::Outbox).set(1, &[7]);
        assert_eq!((&a, hash(&a)), (&b, hash(&b)));
    }
}
