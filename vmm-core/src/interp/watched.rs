//! What an engine that keeps code in another form than the interpreter's wants to know of it: which pages
//! it is made from, and when these are written.
//!
//! A page that is *watched* counts as one that decoded code is kept of, so that the same things protect it; it is
//! watched until it is written, or forgotten. Then it is on the list of those that the engine takes.

use crate::mem::Page;
use abi::{Gpa, PAGE_SHIFT};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

/// Pages that are watched at a time.
const PAGES: usize = 4096;
/// Heads of chains.
const HEADS: usize = 4096;
/// No place.
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Place {
    page: Cell<Option<Page>>,
    /// The page's guest-physical number.
    number: Cell<u64>,
    next: Cell<u32>,
}

/// The set of them.
#[derive(Debug)]
pub(crate) struct Watched {
    places: Vec<Place>,
    heads: Vec<Cell<u32>>,
    /// The place that is used next.
    next: Cell<usize>,
    /// Pages that are watched no longer, for the engine.
    written: RefCell<Vec<Page>>,
}

impl Watched {
    /// None, and room for some; `None` if there is no memory for that.
    pub fn new() -> Option<Self> {
        let (mut places, mut heads, mut written) = (Vec::new(), Vec::new(), Vec::new());
        places.try_reserve_exact(PAGES).ok()?;
        heads.try_reserve_exact(HEADS).ok()?;
        written.try_reserve_exact(PAGES).ok()?;
        let none = Place { page: Cell::new(None), number: Cell::new(0), next: Cell::new(NONE) };
        places.resize(PAGES, none);
        heads.resize(HEADS, Cell::new(NONE));
        Some(Self { places, heads, next: Cell::new(0), written: RefCell::new(written) })
    }

    fn head(&self, page: Page) -> &Cell<u32> {
        &self.heads[(page.base().as_ptr().addr() >> PAGE_SHIFT) % HEADS]
    }

    /// Whether a page is watched.
    pub fn has(&self, page: Page) -> bool {
        let mut at = self.head(page).get();
        while let Some(place) = self.places.get(at as usize) {
            if place.page.get() == Some(page) {
                return true;
            }
            at = place.next.get();
        }
        false
    }

    /// Watches a page, which is the guest's at `gpa`. It may be that another is no longer watched.
    pub fn watch(&self, page: Page, gpa: Gpa) {
        if self.has(page) {
            return;
        }
        let index = self.next.get();
        self.next.set((index + 1) % PAGES);
        let place = &self.places[index];
        if let Some(old) = place.page.get() {
            self.release(old);
        }
        place.page.set(Some(page));
        place.number.set(gpa.page());
        place.next.set(self.head(page).replace(index as u32));
    }

    /// A page is written: it is no longer watched. Whether it was.
    pub fn release(&self, page: Page) -> bool {
        let mut link = self.head(page);
        while let Some(place) = self.places.get(link.get() as usize) {
            if place.page.get() == Some(page) {
                place.page.set(None);
                link.set(place.next.get());
                self.written.borrow_mut().push(page);
                return true;
            }
            link = &place.next;
        }
        false
    }

    /// Watches none of the pages with these guest-physical numbers any longer.
    pub fn forget(&self, numbers: core::ops::Range<u64>) {
        for place in &self.places {
            if let Some(page) = place.page.get()
                && numbers.contains(&place.number.get())
            {
                self.release(page);
            }
        }
    }

    /// One of the pages that are watched no longer since it was asked for.
    pub fn take(&self) -> Option<Page> {
        self.written.borrow_mut().pop()
    }
}
