//! What was said and done in the machine that is searched, and the rules that it is held to.

use super::super::registry::Place;
use super::super::{CellDown, CellSet, Message, Reply, Request, Undelivered};
use abi::CellId;

/// The name of a message: its sender, the sender's incarnation and its number.
pub fn name(cell: CellId, incarnation: u8, number: usize) -> u32 {
    u32::from(cell.0) << 16 | u32::from(incarnation) << 8 | number as u32
}

pub fn unname(name: u32) -> (usize, usize, usize) {
    ((name >> 16) as usize, ((name >> 8 & 0xff) as usize).wrapping_sub(1), (name & 0xff) as usize)
}

/// Stops the search.
pub type Check<T = ()> = Result<T, String>;

pub fn broken<T>(rule: &str) -> Check<T> {
    Err(rule.into())
}

/// A hand-over that has not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transit {
    from: CellId,
    to: CellId,
    /// The other cell has accepted.
    copied: bool,
    /// The old owner knows.
    left: bool,
}

/// What has become of one thing that was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fate {
    /// How often it was executed.
    pub executed: u8,
    /// What the cell that said it was told: whether it was executed.
    pub told: Option<bool>,
}

/// What was said and done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Messages by sender and its incarnation (less 1), oldest first.
    pub messages: Vec<[Vec<Fate>; 2]>,
    /// Calls, by number in the case and the caller's incarnation (less 1).
    pub calls: Vec<[Vec<Fate>; 2]>,
    /// Searches by each cell: begun, and ended.
    pub searches: Vec<(u8, u8)>,
    /// The cell that may let the VCPU run.
    pub owner: Option<CellId>,
    /// Its hand-over.
    pub transit: Option<Transit>,
    /// It died with its owner.
    pub lost: bool,
}

impl Record {
    /// Nothing was said yet, and `owner` has the VCPU.
    pub fn new(cells: usize, calls: usize, owner: CellId) -> Self {
        let fates = |count| vec![[Vec::new(), Vec::new()]; count];
        Self {
            messages: fates(cells),
            calls: fates(calls),
            searches: vec![(0, 0); cells],
            owner: Some(owner),
            transit: None,
            lost: false,
        }
    }

    /// What a cell has sent in this incarnation.
    pub fn messages_of(&mut self, cell: CellId, incarnation: u8) -> &mut Vec<Fate> {
        &mut self.messages[usize::from(cell.0)][usize::from(incarnation) - 1]
    }

    /// The calls of this number in the case that were made in this incarnation of the caller.
    pub fn calls_of(&mut self, call: usize, incarnation: u8) -> &mut Vec<Fate> {
        &mut self.calls[call][usize::from(incarnation) - 1]
    }

    /// The VCPU is offered.
    pub fn offer(&mut self, from: CellId, to: CellId) {
        self.owner = None;
        self.transit = Some(Transit { from, to, copied: false, left: false });
    }

    /// The cell that it was offered to has its state, or not.
    pub fn copied(&mut self, from: CellId, to: CellId, taken: bool) {
        if let Some(transit) = &mut self.transit
            && (transit.from, transit.to) == (from, to)
        {
            transit.copied |= taken;
        }
    }

    /// The old owner has given it to a cell that lives or not.
    pub fn left(&mut self, lives: bool) {
        if !lives {
            // It has died since, unheard: the VCPU is lost with it.
            self.lost = true;
            self.transit = None;
        } else if let Some(transit) = &mut self.transit {
            transit.left = true;
        }
    }

    /// A cell of those that are `up` dies.
    pub fn die(&mut self, cell: CellId, up: CellSet) {
        let survives = match (self.owner, &self.transit) {
            (Some(owner), _) => owner != cell,
            (None, Some(transit)) if transit.from == cell => transit.copied && up.has(transit.to),
            (None, Some(transit)) if transit.to == cell => !transit.left && up.has(transit.from),
            (None, Some(_)) => true,
            (None, None) => false,
        };
        if !survives {
            self.lost = true;
            self.owner = None;
            self.transit = None;
        }
    }

    /// A message is executed by a cell.
    pub fn execute(&mut self, cell: CellId, place: Place, message: Message) -> Check {
        let Message::Probe(name) = message else { return broken("a message that nobody sent") };
        if self.owner != Some(cell) || place != Place::Here {
            return broken("a message was executed by a cell that does not own the VCPU");
        }
        let (sender, incarnation, number) = unname(name as u32);
        let sent = self.messages.get_mut(sender).and_then(|sent| sent.get_mut(incarnation));
        let Some(sent) = sent.filter(|sent| number < sent.len()) else {
            return broken("a message was executed that was not sent");
        };
        if sent[number].executed > 0 {
            return broken("a message was executed twice");
        }
        if sent[number].told == Some(false) {
            return broken("a message was executed after its sender was told that it won't be");
        }
        if sent[..number].iter().any(|fate| fate.executed == 0) {
            return broken("a message was executed before an older one");
        }
        sent[number].executed = 1;
        Ok(())
    }

    pub fn told(&mut self, token: u32, result: Result<(), Undelivered>) -> Check {
        let (sender, incarnation, number) = unname(token);
        let fate = &mut self.messages[sender][incarnation][number];
        if fate.told.is_some() {
            return broken("a sender was told twice");
        }
        match result {
            Ok(()) if fate.executed == 0 => {
                return broken("a sender was told of an execution that was not");
            }
            Err(_) if !self.lost => {
                return broken("a sender was told that a VCPU is lost that lives");
            }
            _ => {}
        }
        fate.told = Some(result.is_ok());
        Ok(())
    }

    /// A search of a cell has ended.
    pub fn found(&mut self, cell: CellId, found: Option<CellId>) -> Check {
        let (begun, ended) = &mut self.searches[usize::from(cell.0)];
        *ended += 1;
        if ended > begun {
            return broken("a search ended twice");
        }
        if found.is_none() && !self.lost {
            return broken("a VCPU was not found that lives");
        }
        Ok(())
    }

    pub fn serve(&mut self, request: Request) -> Check<Reply> {
        let Request::Loan(payload) = request else { return broken("a call that nobody made") };
        let [name] = *payload.as_slice() else { return broken("a call that was not made so") };
        let (call, incarnation, number) = unname(name as u32);
        let Some(fate) = self
            .calls
            .get_mut(call)
            .and_then(|calls| calls.get_mut(incarnation))
            .and_then(|calls| calls.get_mut(number))
        else {
            return broken("a call was executed that was not made");
        };
        if fate.told == Some(false) {
            return broken("a call was executed after its caller was told CellDown");
        }
        if fate.executed > 0 {
            return broken("a call was executed twice");
        }
        fate.executed = 1;
        Ok(Reply::Loan(payload))
    }

    pub fn returned(&mut self, token: u32, result: Result<Reply, CellDown>, dead: bool) -> Check {
        let (call, incarnation, number) = unname(token);
        let fate = &mut self.calls[call][incarnation][number];
        if fate.told.is_some() {
            return broken("a caller was told twice");
        }
        match result {
            Ok(Reply::Loan(payload))
                if payload.as_slice() == [u64::from(token)] && fate.executed == 1 => {}
            Ok(_) => return broken("a call was answered that was not executed"),
            Err(CellDown) if !dead => return broken("CellDown of a cell that lives"),
            Err(CellDown) => {}
        }
        fate.told = Some(result.is_ok());
        Ok(())
    }

    /// A cell lets the VCPU run.
    pub fn own(&mut self, cell: CellId) -> Check {
        if self.owner.is_some() {
            return broken("two cells own the VCPU");
        }
        if self.lost {
            return broken("a VCPU came back that was lost");
        }
        self.owner = Some(cell);
        self.transit = None;
        Ok(())
    }
}
