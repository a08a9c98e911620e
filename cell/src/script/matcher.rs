//! One regular expression, matched byte by byte as output comes.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use regex_automata::dfa::{Automaton, sparse};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;

/// A byte of each kind that an assertion can ask of the byte *after* a match (`$`, `\b`): a word
/// byte, another one, and the two bytes of a line's end.
const KINDS_OF_NEXT_BYTE: [u8; 4] = [b'a', b' ', b'\n', b'\r'];

/// A compiled expression ([`abi::script`] says how it was built).
#[derive(Debug)]
pub struct Matcher {
    dfa: sparse::DFA<Vec<u8>>,
}

/// How far a search is: the state of the automaton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress(StateID);

/// Where a match ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// Before the byte just fed, which showed that it was a match (`$`, `\b`).
    Before,
    /// After it.
    After,
}

impl Progress {
    /// The state, for [`Self::from_word`].
    pub const fn word(self) -> u32 {
        self.0.as_u32()
    }

    /// The state of the same automaton that [`Self::word`] has made a word of, in this cell or another one.
    pub fn from_word(word: u32) -> Option<Self> {
        StateID::new(word as usize).ok().map(Self)
    }
}

impl Matcher {
    /// Takes an automaton as it was serialised for this machine.
    ///
    /// # Errors
    /// When the bytes are not such an automaton, or one of another byte order: the text says which.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (dfa, used) = sparse::DFA::from_bytes(bytes).map_err(|e| e.to_string())?;
        if used != bytes.len() {
            return Err("bytes follow the automaton".into());
        }
        let matcher = Self { dfa: dfa.to_owned() };
        for behind in core::iter::once(None).chain((0..=u8::MAX).map(Some)) {
            matcher.state_at_start(behind)?;
        }
        Ok(matcher)
    }

    fn state_at_start(&self, behind: Option<u8>) -> Result<StateID, String> {
        self.dfa.start_state(&start::Config::new().look_behind(behind)).map_err(|e| e.to_string())
    }

    /// Begins a search after the byte `behind` (`None`: at the start of all output); `Err` when the
    /// expression matches the empty string there.
    ///
    /// # Panics
    /// Never: [`Self::decode`] has tried every start.
    pub fn start(&self, behind: Option<u8>) -> Result<Progress, Hit> {
        let state = self.state_at_start(behind).expect("a start that `decode` has tried");
        if self.has_ended(state) { Err(Hit::After) } else { Ok(Progress(state)) }
    }

    /// Goes on with the next byte.
    pub fn feed(&self, progress: &mut Progress, byte: u8) -> Option<Hit> {
        let state = self.dfa.next_state(progress.0, byte);
        progress.0 = state;
        // The automaton reports a match one byte late, so that it can look at that byte.
        if self.dfa.is_match_state(state) {
            Some(Hit::Before)
        } else if self.has_ended(state) {
            Some(Hit::After)
        } else {
            None
        }
    }

    /// Whether a match ends here whatever comes next, and even if nothing does.
    fn has_ended(&self, state: StateID) -> bool {
        KINDS_OF_NEXT_BYTE.iter().all(|&b| self.dfa.is_match_state(self.dfa.next_state(state, b)))
            && self.dfa.is_match_state(self.dfa.next_eoi_state(state))
    }
}
