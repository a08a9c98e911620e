//! A breadth-first search of all states of a model, by their hashes.
//!
//! Of each state only a 128-bit hash is kept, and which states follow it, so that afterwards every state can be asked whether
//! the end can still be reached from it: that is stronger than the absence of deadlocks, since endless retries
//! don't count as an end. (This is what the ready-made model checkers for Rust don't do.)

use std::collections::HashMap;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::rc::Rc;

/// What is searched.
pub trait Model {
    /// One state of everything.
    type State: Clone + Hash;
    /// One thing that can happen.
    type Action: Copy + Debug;

    /// The beginning.
    fn start(&self) -> Self::State;
    /// What can happen in a state.
    fn actions(&self, state: &Self::State, actions: &mut Vec<Self::Action>);
    /// What follows; nothing if the action does nothing.
    ///
    /// # Errors
    /// A rule is broken: which.
    fn next(
        &self,
        state: &Self::State,
        action: Self::Action,
    ) -> Result<Option<Self::State>, String>;
    /// Whether everything is done that is to be done.
    ///
    /// # Errors
    /// Everything has ended, but not as it should have.
    fn is_end(&self, state: &Self::State) -> Result<bool, String>;
}

/// The size of what was searched.
#[derive(Clone, Copy, Debug)]
pub struct Searched {
    /// Different states.
    pub states: usize,
    /// Actions that led from one to another.
    pub steps: usize,
    /// The longest shortest way to a state.
    pub depth: usize,
    /// States in which everything is done.
    pub ends: usize,
}

/// A way to something that must not be.
#[derive(Debug)]
pub struct Broken {
    /// What is wrong.
    pub what: String,
    /// The actions that lead there, one a line.
    pub way: Vec<String>,
    /// States that had been found.
    pub states: usize,
}

/// Two lanes of multiply and rotate: fast, and with 128 bits a collision among 10^8 states has a chance below 10^-21.
#[derive(Clone, Copy)]
struct Fold(u64, u64);

impl Default for Fold {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f)
    }
}

impl Fold {
    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9fb2_1c65_1e98_df25;
        self.0 = product as u64 ^ (product >> 64) as u64;
        self.1 = (self.1.rotate_left(25) ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
    }
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.word(u64::from_le_bytes(chunk.try_into().expect("8 bytes")));
        }
        for &byte in chunks.remainder() {
            self.word(u64::from(byte) | 0x100);
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.word(u64::from(value));
    }
    fn write_u16(&mut self, value: u16) {
        self.word(u64::from(value));
    }
    fn write_u32(&mut self, value: u32) {
        self.word(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }
    fn write_usize(&mut self, value: usize) {
        self.word(value as u64);
    }
}

/// The hash by which a state, or a part of one, is known.
pub fn hash(value: &impl Hash) -> u128 {
    let mut fold = Fold::default();
    value.hash(&mut fold);
    let mix = |x: u64| (x ^ x >> 31).wrapping_mul(0x94d0_49bb_1331_11eb);
    u128::from(mix(fold.0)) << 64 | u128::from(mix(fold.1) ^ fold.0 >> 29)
}

/// What is known of the states that were found, by number.
struct Found<A> {
    numbers: HashMap<u128, u32, BuildHasherDefault<Fold>>,
    /// Where a state was first come to from.
    parents: Vec<(u32, Option<A>)>,
}

impl<A: Copy + Debug> Found<A> {
    fn way(&self, mut state: u32, last: Option<A>) -> Vec<String> {
        let mut way: Vec<String> = last.iter().map(|action| format!("{action:?}")).collect();
        while let (parent, Some(action)) = self.parents[state as usize] {
            way.push(format!("{action:?}"));
            state = parent;
        }
        way.reverse();
        way
    }
}

/// Searches all states; at most `limit`, beyond which it gives up.
///
/// # Errors
/// A rule is broken, an end is not as it should be, or can't be reached from some state; or there are too many.
pub fn explore<M: Model>(model: &M, limit: usize) -> Result<Searched, Broken> {
    let mut found = Found { numbers: HashMap::default(), parents: Vec::new() };
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut ends: Vec<u32> = Vec::new();
    let mut queue: VecDeque<(u32, u32, Rc<M::State>)> = VecDeque::new();
    let start = model.start();
    found.numbers.insert(hash(&start), 0);
    found.parents.push((0, None));
    queue.push_back((0, 0, Rc::new(start)));
    let mut actions = Vec::new();
    let mut depth = 0;
    while let Some((number, steps, state)) = queue.pop_front() {
        depth = steps;
        let states = found.parents.len();
        match model.is_end(&state) {
            Ok(true) => ends.push(number),
            Ok(false) => {}
            Err(what) => return Err(Broken { what, way: found.way(number, None), states }),
        }
        actions.clear();
        model.actions(&state, &mut actions);
        for &action in &actions {
            let next = match model.next(&state, action) {
                Ok(Some(next)) => next,
                Ok(None) => continue,
                Err(what) => {
                    return Err(Broken { what, way: found.way(number, Some(action)), states });
                }
            };
            let to = match found.numbers.entry(hash(&next)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let to = found.parents.len() as u32;
                    new.insert(to);
                    found.parents.push((number, Some(action)));
                    queue.push_back((to, steps + 1, Rc::new(next)));
                    to
                }
            };
            if to != number {
                edges.push((number, to));
            }
        }
        if found.parents.len() > limit {
            let what = format!("more than {limit} states");
            return Err(Broken { what, way: Vec::new(), states });
        }
    }
    let states = found.parents.len();
    if let Some(stuck) = cut_off(states, &edges, &ends) {
        let what = "the end can't be reached from here".into();
        return Err(Broken { what, way: found.way(stuck, None), states });
    }
    Ok(Searched { states, steps: edges.len(), depth: depth as usize, ends: ends.len() })
}

/// The first state from which no end can be reached.
fn cut_off(states: usize, edges: &[(u32, u32)], ends: &[u32]) -> Option<u32> {
    // Predecessors of state `s` are `before[first[s]..first[s + 1]]`.
    let mut first = vec![0u32; states + 2];
    for &(_, to) in edges {
        first[to as usize + 2] += 1;
    }
    for state in 1..first.len() {
        first[state] += first[state - 1];
    }
    let mut before = vec![0u32; edges.len()];
    for &(from, to) in edges {
        let slot = &mut first[to as usize + 1];
        before[*slot as usize] = from;
        *slot += 1;
    }
    let mut can = vec![false; states];
    let mut todo = ends.to_vec();
    while let Some(state) = todo.pop() {
        if !std::mem::replace(&mut can[state as usize], true) {
            let range = first[state as usize] as usize..first[state as usize + 1] as usize;
            todo.extend_from_slice(&before[range]);
        }
    }
    can.iter().position(|&can| !can).map(|state| state as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts to `top` by steps of 1 and 2; a trap at `trap` lets nobody out, and `bad` must not be.
    struct Count {
        top: u8,
        trap: u8,
        bad: u8,
    }

    impl Model for Count {
        type State = u8;
        type Action = u8;
        fn start(&self) -> u8 {
            0
        }
        fn actions(&self, _: &u8, actions: &mut Vec<u8>) {
            actions.extend([0, 1, 2]);
        }
        fn next(&self, &state: &u8, action: u8) -> Result<Option<u8>, String> {
            let next = state + action;
            if next == self.bad {
                return Err("bad".into());
            }
            Ok((state != self.trap && next <= self.top).then_some(next))
        }
        fn is_end(&self, &state: &u8) -> Result<bool, String> {
            Ok(state == self.top)
        }
    }

    #[test]
    fn finds_all_states_and_the_shortest_way_to_what_must_not_be() {
        let all = explore(&Count { top: 9, trap: 99, bad: 99 }, 100).unwrap();
        assert_eq!((all.states, all.steps, all.depth, all.ends), (10, 17, 5, 1));
        let bad = explore(&Count { top: 9, trap: 99, bad: 5 }, 100).unwrap_err();
        assert_eq!((bad.what.as_str(), bad.way.len()), ("bad", 3));
        let trap = explore(&Count { top: 9, trap: 4, bad: 99 }, 100).unwrap_err();
        assert_eq!((trap.what.as_str(), trap.way.len()), ("the end can't be reached from here", 2));
        assert!(explore(&Count { top: 9, trap: 99, bad: 99 }, 5).is_err());
    }
}
