//! The searches that a script makes on one console.

use super::matcher::{Hit, Matcher, Progress};
use crate::tail::Tail;
use abi::DecodeError;
use abi::codec::{Reader, Writer};
use alloc::string::String;
use alloc::vec::Vec;

/// What is saved of a search that has matched.
const MATCHED: u32 = u32::MAX;

/// A search of one `expect` or `absent`.
#[derive(Debug)]
struct Search {
    /// The automaton as it was compiled, until it is needed.
    dfa: Vec<u8>,
    matcher: Option<Matcher>,
    /// Whether the next search starts where this one's match ends: an `expect`.
    ends_at_match: bool,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Where it starts is not known yet: an `expect` before it has not matched.
    Ahead,
    Running(Progress),
    Matched,
}

impl Search {
    /// Makes the automaton usable.
    fn decode(&mut self) -> Result<(), String> {
        if self.matcher.is_none() {
            self.matcher = Some(Matcher::decode(&core::mem::take(&mut self.dfa))?);
        }
        Ok(())
    }
}

/// A console and the searches on it, in the order of their steps.
///
/// Of these, `searches[..done]` belong to steps that are done; `searches[done..opened]` run or have
/// matched; the rest is ahead. At most one running search ends at its match: the last opened one.
#[derive(Debug)]
pub struct Console {
    stream: u16,
    name: String,
    searches: Vec<Search>,
    done: usize,
    opened: usize,
    /// The last byte printed.
    last: Option<u8>,
    tail: Tail,
    /// What was printed first is not in `tail`: another cell played the script then.
    resumed: bool,
}

impl Console {
    pub const fn new(stream: u16, name: String) -> Self {
        Self {
            stream,
            name,
            searches: Vec::new(),
            done: 0,
            opened: 0,
            last: None,
            tail: Tail::new(),
            resumed: false,
        }
    }

    pub const fn stream(&self) -> u16 {
        self.stream
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub const fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Whether what it printed first was printed to another cell's player.
    pub const fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Writes down how far its searches are.
    pub fn save(&self, w: &mut Writer) {
        w.u16(self.stream);
        w.u32(self.done as u32);
        w.u32(self.opened as u32);
        w.u16(self.last.map_or(u16::MAX, u16::from));
        for search in &self.searches[self.done..self.opened] {
            w.u32(match search.state {
                // No automaton has as many states.
                State::Ahead | State::Matched => MATCHED,
                State::Running(progress) => progress.word(),
            });
        }
    }

    /// Goes on where [`Self::save`] was, with the same searches.
    ///
    /// # Errors
    /// When it was not with these.
    pub fn resume(&mut self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        let error = r.error("this console");
        if r.u16()? != self.stream {
            return Err(error);
        }
        let (done, opened) = (r.u32()? as usize, r.u32()? as usize);
        let last = r.u16()?;
        let error = r.error("a search");
        for search in self.searches.get_mut(done..opened).ok_or(error)? {
            search.state = match r.u32()? {
                MATCHED => State::Matched,
                word => State::Running(Progress::from_word(word).ok_or(error)?),
            };
            search.decode().map_err(|_| error)?;
        }
        (self.done, self.opened, self.last) = (done, opened, u8::try_from(last).ok());
        self.resumed = true;
        Ok(())
    }

    /// Whether the last that was printed ends a line.
    pub const fn is_at_line_start(&self) -> bool {
        matches!(self.last, None | Some(b'\n'))
    }

    /// Adds the search of the next step.
    pub fn plan(&mut self, dfa: Vec<u8>, ends_at_match: bool) {
        let (matcher, state) = (None, State::Ahead);
        self.searches.push(Search { dfa, matcher, ends_at_match, state });
    }

    /// Whether the automaton of the search that was planned last can be used.
    ///
    /// # Errors
    /// Why it can't.
    pub fn check_last(&mut self) -> Result<(), String> {
        self.searches.last_mut().map_or(Ok(()), Search::decode)
    }

    /// Starts the first searches, when all are planned.
    pub fn begin(&mut self) {
        self.open(None);
    }

    /// Starts the searches that begin after the byte `behind`: all up to the next that ends at its
    /// match, and on if that one matches the empty string.
    fn open(&mut self, behind: Option<u8>) {
        while let Some(search) = self.searches.get_mut(self.opened) {
            self.opened += 1;
            // Those that were not decoded when the script began were so in another cell.
            let Ok(()) = search.decode() else { continue };
            let Some(matcher) = &search.matcher else { continue };
            match matcher.start(behind) {
                Ok(progress) => {
                    search.state = State::Running(progress);
                    if search.ends_at_match {
                        break;
                    }
                }
                Err(_) => search.state = State::Matched,
            }
        }
    }

    pub fn output(&mut self, bytes: &[u8]) {
        self.tail.push(bytes);
        for &byte in bytes {
            self.feed(byte);
            self.last = Some(byte);
        }
    }

    fn feed(&mut self, byte: u8) {
        let mut at = self.done;
        // `opened` grows when a match ends before this byte: the searches that start there see it.
        while at < self.opened {
            let search = &mut self.searches[at];
            at += 1;
            let State::Running(progress) = &mut search.state else { continue };
            let hit = search.matcher.as_ref().and_then(|matcher| matcher.feed(progress, byte));
            let Some(hit) = hit else { continue };
            search.state = State::Matched;
            if search.ends_at_match {
                match hit {
                    Hit::Before => self.open(self.last),
                    // Those that start after this byte do not see it.
                    Hit::After => return self.open(Some(byte)),
                }
            }
        }
    }

    /// Whether the search of the first step that is not done has matched.
    pub fn has_matched(&self) -> bool {
        self.searches.get(self.done).is_some_and(|s| matches!(s.state, State::Matched))
    }

    /// The first step that was not done, is.
    pub const fn done(&mut self) {
        self.done += 1;
    }
}
