//! What emitted code knows of the guest's TLB, and what it has posted to be written there.

use super::{Own, PAGE};
use crate::cpu::{Vcpu, presence};
use crate::emulate::{Data, system};
use crate::translate::layout::slot;

/// What EntryHi never is.
const NO_ENTRY_HI: u64 = !0;
/// No entry that may be written.
const NO_ENTRY: u64 = !0;
/// How many posts there can be, and victims of theirs.
const POSTS: u64 = slot::POST_COUNT as u64;
const VICTIMS: usize = slot::VICTIM_COUNT;

/// What emitted code has been told.
#[derive(Debug)]
pub(super) struct Posting {
    /// How often the TLB had changed, Random's generator, Wired and PageMask when it was …
    told: [u64; 3],
    /// … and EntryHi.
    probed: u64,
    /// Emitted code knows more than what a probe of EntryHi finds: it has begun to change the TLB.
    full: bool,
    /// Writes may be posted at all.
    ready: bool,
    /// The entries that `tlbwr` replaces next …
    victims: [u16; VICTIMS],
    count: usize,
    /// … with the state of Random's generator before each, and behind the last …
    states: [[u32; 2]; VICTIMS + 1],
    /// … of them, the next one …
    next: usize,
    /// … and the address space and Wired that they are for.
    space: (u8, u32),
    /// The entries that were found for EntryHi and for what was faulted at, if they may be written unseen.
    again: [Option<u16>; 2],
    /// What was faulted at last, if it has an entry: EntryHi, and that.
    fault: Option<(u64, u16)>,
}

impl Posting {
    /// Nothing.
    pub const NOTHING: Self = Self {
        told: [!0; 3],
        probed: !0,
        full: false,
        ready: false,
        victims: [0; VICTIMS],
        count: 0,
        states: [[0; 2]; VICTIMS + 1],
        next: 0,
        space: (0, !0),
        again: [None; 2],
        fault: None,
    };
}

/// A field of a post.
const fn place(post: u64, field: u16) -> u16 {
    slot::POSTS + slot::POST_BYTES * post as u16 + field
}

impl Own {
    /// The address that [`slot::POSTED`] says nothing is posted with.
    const fn first_post(&self) -> u64 {
        self.layout.page + slot::POSTS as u64
    }

    /// Nothing is posted, nor known.
    pub(super) fn begin_posts(&self) {
        self.put(place(POSTS, slot::POST_BEYOND), !0);
        for n in 0..=VICTIMS as u16 {
            self.put(slot::VICTIMS + 8 * n, !0);
        }
        self.put(slot::UNTOLD, 1);
        self.know_nothing();
        self.lend_next_victim(VICTIMS);
    }

    fn know_nothing(&self) {
        self.put(slot::POSTED, self.first_post());
        self.put(place(0, slot::POST_HI), NO_ENTRY_HI);
        self.put(place(0, slot::POST_AGAIN), NO_ENTRY);
        self.put(slot::FAULT_HI, NO_ENTRY_HI);
    }

    /// `tlbwr` replaces this one of [`slot::VICTIMS`] next.
    fn lend_next_victim(&self, number: usize) {
        let at = slot::VICTIMS + 8 * number as u16;
        self.put(place(0, slot::POST_VICTIM), self.layout.page + u64::from(at));
    }

    /// Whether writes are posted.
    pub fn has_posts(&self) -> bool {
        self.get(slot::POSTED) != self.first_post()
    }

    /// The TLB gets what has been posted; how many posts that were. The guest may have put there what it likes: it has
    /// written that, then.
    pub fn take_posts(&mut self, cpu: &mut Vcpu) -> u64 {
        let bytes = self.get(slot::POSTED).wrapping_sub(self.first_post());
        let posts = bytes / u64::from(slot::POST_BYTES);
        let right = bytes.is_multiple_of(u64::from(slot::POST_BYTES)) && posts < POSTS;
        let posts = if right { posts } else { 0 };
        let mut victim = self.get(place(0, slot::POST_VICTIM));
        for post in 1..=posts {
            let get = |post, field| self.get(place(post, field));
            if (get(post, slot::POST_LO[0]) as i64) < 0 {
                // It was found only.
                continue;
            }
            let following = get(post, slot::POST_VICTIM);
            let mut index = get(post, slot::POST_INDEX);
            if following != victim {
                index = cpu.next_random().into();
                victim = following;
            }
            let entry_hi = get(post, slot::POST_HI);
            // Written once more at once: nobody has seen this one.
            let again = post < posts
                && get(post + 1, slot::POST_VICTIM) == victim
                && get(post + 1, slot::POST_INDEX) == index
                && get(post + 1, slot::POST_HI) == entry_hi;
            if again {
                continue;
            }
            let model = *cpu.model();
            let lo = slot::POST_LO.map(|field| get(post, field) & model.entry_lo_mask());
            let new = system::entry(&model, entry_hi & model.entry_hi_mask(), lo, 0);
            system::write_entry(cpu, index as usize % cpu.tlb().len(), new);
        }
        self.know_nothing();
        self.posting.told = [!0; 3];
        if !self.posting.full {
            // (The guest has made that up.)
            return posts;
        }
        let small = cpu.cp0().page_mask == 0;
        let told = cpu.tlb.presence().is_some_and(|presence| presence.is_complete());
        self.lend_victims(cpu, told && small);
        posts
    }

    /// Emitted code will change the TLB, it seems: from now on it may post that.
    pub const fn let_post(&mut self) {
        (self.posting.full, self.posting.told) = (true, [!0; 3]);
    }

    /// Emitted code does something else now: what it would have to know to post anything is not kept up any more.
    pub fn end_posts(&mut self) {
        if self.posting.full {
            self.posting.full = false;
            self.posting.told = [!0; 3];
            self.stop_posts();
            self.put(slot::UNTOLD, 1);
            self.put(slot::FAULT_HI, NO_ENTRY_HI);
        }
    }

    /// Emitted code finds what the TLB has, as far as it asks. (Nothing is posted.)
    pub fn lend_tlb(&mut self, cpu: &mut Vcpu) {
        if self.posting.full { self.lend_all(cpu) } else { self.lend_probe(cpu) }
    }

    /// It finds what a probe of EntryHi finds.
    fn lend_probe(&mut self, cpu: &Vcpu) {
        let (entry_hi, changes) = (cpu.cp0().entry_hi, cpu.tlb().changes());
        if self.posting.probed == entry_hi && self.posting.told[0] == changes {
            return;
        }
        (self.posting.probed, self.posting.told[0]) = (entry_hi, changes);
        let found = cpu.tlb().lookup(entry_hi, cpu.asid()).map(|index| index as u16);
        self.put(place(0, slot::POST_HI), if found.is_some() { entry_hi } else { NO_ENTRY_HI });
        self.put(place(0, slot::POST_INDEX), found.unwrap_or(0).into());
        if (cpu.cp0().bad_vaddr ^ entry_hi) >> 13 == 0 {
            self.posting.fault = found.map(|index| (entry_hi, index));
        }
    }

    fn lend_all(&mut self, cpu: &mut Vcpu) {
        let cp0 = cpu.cp0();
        let (entry_hi, [state, last]) = (cp0.entry_hi, cp0.random().map(u64::from));
        let now = [
            cpu.tlb().changes(),
            state << 32 | last,
            u64::from(cp0.wired) << 32 | u64::from(cp0.page_mask),
        ];
        let stands = cpu.tlb().victims_stand();
        let same = stands && now.iter().zip(&self.posting.told).all(|(new, old)| new == old);
        let probed = core::mem::replace(&mut self.posting.probed, entry_hi);
        if same && probed == entry_hi {
            return;
        }
        if !same {
            self.posting.told = now;
            self.posting.ready = self.lend_presence(cpu) && cpu.cp0().page_mask == 0;
        }
        if !same || (probed ^ entry_hi) as u8 != 0 {
            self.lend_victims(cpu, self.posting.ready);
        }
        self.lend_found(cpu, same);
        cpu.tlb.let_victims_stand();
    }

    /// What a probe finds, of what is in EntryHi and of what was faulted at. If the TLB is the `same` as it was, the
    /// latter is, too, unless it is the former.
    fn lend_found(&mut self, cpu: &mut Vcpu, same: bool) {
        let (entry_hi, bad_vaddr) = (cpu.cp0().entry_hi, cpu.cp0().bad_vaddr);
        let found = cpu.tlb().lookup(entry_hi, cpu.asid()).map(|index| index as u16);
        let once_more = self.unseen(cpu, entry_hi, found);
        self.put(place(0, slot::POST_HI), if found.is_some() { entry_hi } else { NO_ENTRY_HI });
        self.put(place(0, slot::POST_INDEX), found.unwrap_or(0).into());
        self.put(place(0, slot::POST_AGAIN), once_more.map_or(NO_ENTRY, u64::from));
        let here = (bad_vaddr ^ entry_hi) >> 13 == 0;
        let fault = match self.posting.fault {
            _ if here => found.map(|index| (entry_hi, index)),
            Some(_) if same => self.posting.fault,
            Some((hi, index)) if cpu.tlb().lookup(hi, hi as u8) == Some(index.into()) => {
                Some((hi, index))
            }
            _ => None,
        };
        let Posting { victims, next, count, .. } = &self.posting;
        let fault = fault.filter(|(_, index)| !victims[*next..*count].contains(index));
        self.posting.fault = fault;
        let (hi, index) = fault.unwrap_or((NO_ENTRY_HI, 0));
        let fault_again = self.unseen(cpu, hi, Some(index));
        self.put(slot::FAULT_HI, hi);
        self.put(slot::FAULT_INDEX, index.into());
        self.put(slot::FAULT_AGAIN, fault_again.map_or(NO_ENTRY, u64::from));
        let again = [once_more, fault_again];
        let old = core::mem::replace(&mut self.posting.again, again);
        if old != again {
            let Posting { victims, count, .. } = &self.posting;
            // (Victims have their marks anyway.)
            for index in old.into_iter().flatten().filter(|old| !victims[..*count].contains(old)) {
                cpu.tlb.mark_victims(&[index], &[]);
            }
            again.iter().for_each(|index| cpu.tlb.mark_victims(&[], index.as_slice()));
        }
    }

    /// The entry that was found for what would be in EntryHi, if it may be written unseen.
    fn unseen(&self, cpu: &Vcpu, entry_hi: u64, found: Option<u16>) -> Option<u16> {
        // (One with EHINV would make the entry one that is not found.)
        let may = self.posting.ready && presence::is_user(entry_hi) && entry_hi & 0x1f00 == 0;
        found.filter(|&index| may && !cpu.tlb().is_copied(index.into()))
    }

    /// Nothing is posted until the TLB is told again.
    pub fn stop_posts(&self) {
        self.lend_next_victim(VICTIMS);
        self.put(place(0, slot::POST_AGAIN), NO_ENTRY);
        self.put(slot::FAULT_AGAIN, NO_ENTRY);
    }

    /// The filter is as the TLB is; whether it tells anything.
    fn lend_presence(&self, cpu: &mut Vcpu) -> bool {
        let told = self.lend_filter(cpu);
        self.put(slot::UNTOLD, u64::from(!told));
        told
    }

    fn lend_filter(&self, cpu: &mut Vcpu) -> bool {
        let Some(presence) = cpu.tlb.presence() else { return false };
        presence.tell_changes(|place, any| {
            if let Some((page, at)) = self.find(PAGE, slot::FILTER as usize + place) {
                u8::from(any).store(page, at, self.endian);
            }
        });
        presence.is_complete()
    }

    /// `tlbwr` may be posted if it is `ready`, as long as it replaces what nobody looks at.
    fn lend_victims(&mut self, cpu: &mut Vcpu, ready: bool) {
        if !ready {
            return self.lend_next_victim(VICTIMS);
        }
        let Posting { states, next, count, .. } = &self.posting;
        let (state, space) = (cpu.cp0().random(), (cpu.asid(), cpu.cp0().wired));
        let stand = cpu.tlb().victims_stand() && space == self.posting.space;
        let known = (*next..*count).find(|&number| stand && states[number] == state);
        let number = known.unwrap_or_else(|| {
            self.find_victims(cpu);
            self.posting.space = space;
            0
        });
        self.posting.next = number;
        self.lend_next_victim(number);
    }

    fn find_victims(&mut self, cpu: &mut Vcpu) {
        let Posting { victims, count, states, .. } = &mut self.posting;
        let old = *victims;
        let before = core::mem::replace(count, cpu.victims(victims, states));
        cpu.tlb.mark_victims(&old[..before], &victims[..*count]);
        for again in &self.posting.again {
            cpu.tlb.mark_victims(&[], again.as_slice());
        }
        for (n, &index) in (0..).zip(&self.posting.victims[..self.posting.count]) {
            self.put(slot::VICTIMS + 8 * n, index.into());
        }
        self.put(slot::VICTIMS + 8 * self.posting.count as u16, !0);
    }
}
