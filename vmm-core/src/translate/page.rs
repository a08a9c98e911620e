//! What the VCPU page says, and taking it back: the simple way, which [`super::Own`] is tested against.

use super::layout::{Class, Layout, slot};
use crate::cpu::{Vcpu, presence};
use crate::emulate::system;

/// Cause.IP.
const LINES: u32 = 0xff00;
/// Guest `$k0` and `$k1`.
const K0: usize = 26;

/// The contents of a VCPU page: [`slot::COUNT`] doublewords from its start, in the machine's byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageImage {
    /// The doublewords.
    pub words: [u64; slot::COUNT],
}

impl PageImage {
    /// What emitted code is to find: the VCPU's registers, and the constants, with that of the main class as
    /// [`slot::MAIN`].
    #[must_use]
    pub fn of(cpu: &mut Vcpu, layout: &Layout) -> Self {
        let mut image = Self { words: [0; slot::COUNT] };
        image.set(slot::K0, cpu.gpr(K0));
        image.set(slot::K1, cpu.gpr(K0 + 1));
        image.set(slot::PENDING, (cpu.cp0().cause.bits() & LINES).into());
        image.set(slot::MAIN, layout.main.constant());
        image.set(slot::TABLE, layout.table);
        for class in Class::ALL {
            image.set(slot::constant(class), class.constant());
        }
        image.lend_tlb(cpu, layout);
        for bits in 0..slot::MIXED_COUNT {
            image.set(slot::MIXED + 8 * bits, layout.mixed(bits.into()));
        }
        for (number, select) in slot::REGISTERS {
            let (number, select) = (number.into(), select.into());
            if let Some((place, _)) = slot::register(number, select) {
                // None of them depends on time (Cause is as it was when somebody looked last).
                image.set(place, cpu.read_cp0(number, select, 0));
            }
        }
        image
    }

    /// What is known of the TLB, and that nothing is posted.
    fn lend_tlb(&mut self, cpu: &mut Vcpu, layout: &Layout) {
        let entry_hi = cpu.cp0().entry_hi;
        let told = cpu.tlb.presence().is_some_and(|presence| presence.is_complete());
        let ready = told && cpu.cp0().page_mask == 0;
        let (mut victims, mut states) = ([0; slot::VICTIM_COUNT], [[0; 2]; slot::VICTIM_COUNT + 1]);
        let count = if ready { cpu.victims(&mut victims, &mut states) } else { 0 };
        let given = victims[..count].iter().map(|&index| u64::from(index));
        for (n, victim) in (0..=slot::VICTIM_COUNT).zip(given.chain(core::iter::repeat(!0))) {
            self.set(slot::VICTIMS + 8 * n as u16, victim);
        }
        let found = cpu.tlb().lookup(entry_hi, cpu.asid());
        let unseen = |hi: u64, index: Option<usize>| {
            let may = ready && presence::is_user(hi) && hi & 0x1f00 == 0;
            index.filter(|&index| may && !cpu.tlb().is_copied(index))
        };
        let again = unseen(entry_hi, found);
        let fault_hi = cpu.cp0().bad_vaddr & !0x1fff | u64::from(cpu.asid());
        let fault = cpu.tlb().lookup(fault_hi, cpu.asid());
        let fault = fault.filter(|&index| !victims[..count].contains(&(index as u16)));
        let fault_again = unseen(fault_hi, fault);
        self.set(slot::FAULT_HI, if fault.is_some() { fault_hi } else { !0 });
        self.set(slot::FAULT_INDEX, fault.unwrap_or(0) as u64);
        self.set(slot::FAULT_AGAIN, fault_again.map_or(!0, |index| index as u64));
        self.set(slot::UNTOLD, u64::from(!told));
        self.set(slot::POSTED, layout.page + u64::from(slot::POSTS));
        self.set(slot::POSTS + slot::POST_HI, if found.is_some() { entry_hi } else { !0 });
        self.set(slot::POSTS + slot::POST_INDEX, found.unwrap_or(0) as u64);
        self.set(slot::POSTS + slot::POST_AGAIN, again.map_or(!0, |index| index as u64));
        self.set(slot::POSTS + slot::POST_VICTIM, layout.page + u64::from(slot::VICTIMS));
        let beyond = slot::POSTS + slot::POST_BYTES * slot::POST_COUNT as u16;
        self.set(beyond + slot::POST_BEYOND, !0);
        cpu.tlb.mark_victims(&[], &victims[..count]);
        for again in [again, fault_again] {
            cpu.tlb.mark_victims(&[], again.map(|index| index as u16).as_slice());
        }
        cpu.tlb.let_victims_stand();
    }

    /// Nothing is posted any more, until [`PageImage::of`] says otherwise.
    pub fn stop_posts(&mut self) {
        let posted = self.get(slot::POSTED) & !0xffff | u64::from(slot::POSTS);
        self.set(slot::POSTED, posted);
        self.set(slot::POSTS + slot::POST_HI, !0);
        self.set(slot::POSTS + slot::POST_AGAIN, !0);
        self.set(slot::FAULT_HI, !0);
        (0..=slot::VICTIM_COUNT as u16).for_each(|n| self.set(slot::VICTIMS + 8 * n, !0));
    }

    /// The TLB gets what has been posted, one write after the other; how many.
    pub fn take_posts(&self, cpu: &mut Vcpu) -> u16 {
        let last = (self.get(slot::POSTED) & 0xffff) as u16;
        let posts = (last - slot::POSTS) / slot::POST_BYTES;
        for post in 1..=posts {
            let at = |post: u16, field| slot::POSTS + post * slot::POST_BYTES + field;
            let same = |field| self.get(at(post, field)) == self.get(at(post - 1, field));
            if (self.get(at(post, slot::POST_LO[0])) as i64) < 0 {
                continue;
            }
            let index = self.get(at(post, slot::POST_INDEX));
            if !same(slot::POST_VICTIM) {
                assert_eq!(
                    u64::from(cpu.next_random()),
                    index,
                    "the entry that was to be replaced"
                );
            }
            let lo = slot::POST_LO.map(|field| self.get(at(post, field)));
            let entry = system::entry(cpu.model(), self.get(at(post, slot::POST_HI)), lo, 0);
            system::write_entry(cpu, index as usize, entry);
        }
        posts
    }

    /// Takes back what emitted code may have written. The guest can write anything here, so that all
    /// of it is only what the guest might have written to the registers themselves.
    pub fn take_back(&self, cpu: &mut Vcpu) {
        cpu.set_gpr(K0, self.get(slot::K0));
        cpu.set_gpr(K0 + 1, self.get(slot::K1));
        for (number, select) in &slot::REGISTERS[..slot::WRITTEN] {
            let (number, select) = (u32::from(*number), u32::from(*select));
            if let Some((place, _)) = slot::register(number, select)
                && self.get(place) != cpu.read_cp0(number, select, 0)
            {
                match (number, select) {
                    (0, 0) => cpu.set_index(self.get(place)),
                    _ => cpu.write_cp0(number, select, self.get(place), 0),
                }
            }
        }
    }

    const fn set(&mut self, place: u16, value: u64) {
        self.words[place as usize / 8] = value;
    }

    const fn get(&self, place: u16) -> u64 {
        self.words[place as usize / 8]
    }
}
