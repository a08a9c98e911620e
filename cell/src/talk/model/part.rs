//! A part of a state that many states share, with its hash.

use super::explore::hash;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::rc::Rc;

/// An immutable value, cheap to clone, hash and compare.
#[derive(Debug)]
pub struct Part<T>(Rc<(u128, T)>);

impl<T: Hash> Part<T> {
    /// A part of this value.
    pub fn new(value: T) -> Self {
        Self(Rc::new((hash(&value), value)))
    }
}

impl<T: Hash + Clone> Part<T> {
    /// Becomes what `change` makes of the value.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.0.1.clone();
        let result = change(&mut value);
        *self = Self::new(value);
        result
    }
}

impl<T> Deref for Part<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.1
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> PartialEq for Part<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.0 == other.0.0
    }
}

impl<T> Eq for Part<T> {}

impl<T> Hash for Part<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.0.hash(hasher);
    }
}

/// Every different part there was, so that equal ones lie in memory once.
#[derive(Debug)]
pub struct Shared<T>(RefCell<HashMap<u128, Part<T>>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Shared<T> {
    /// Puts the part that was first in the place of an equal one.
    pub fn share(&self, part: &mut Part<T>) {
        // A part that others have is the first one.
        if Rc::strong_count(&part.0) == 1 {
            *part = self.0.borrow_mut().entry(part.0.0).or_insert_with(|| part.clone()).clone();
        }
    }
}
