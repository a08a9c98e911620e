//! What the cell says to other cells, and does for them.

use super::members::Membership;
use super::{LocalCell, Machine, lending, messages};
use crate::loan::Payload;
use crate::talk::{CellSet, Event, Exchange, Live, LiveSet, Reply, Request};
use abi::CellId;
use abi::config::Config;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// How long a cell may keep a caller waiting before it is suspected, in nanoseconds: host threads stand still
/// for two seconds, and that is no evidence.
const PATIENCE_NS: u64 = 3_000_000_000;
/// Messages that may wait at a time.
const ROOM: usize = 64;

/// The exchange, and what was asked through it.
#[derive(Debug)]
pub(super) struct Talk {
    pub exchange: Exchange,
    pub members: Membership,
    pinging: Option<Pinging>,
}

/// An operator's calls to another cell.
#[derive(Clone, Debug)]
struct Pinging {
    to: CellId,
    calls: u64,
    answered: u64,
    /// When the outstanding one was made.
    since: u64,
    /// How long each of the first [`TIMED`] took, in nanoseconds.
    times: Vec<u64>,
}

/// Most calls whose times are kept.
const TIMED: usize = 10_000;

impl Pinging {
    /// What the calls took.
    fn summary(&mut self) -> String {
        self.times.sort_unstable();
        let at = |percent: usize| {
            let place = (self.times.len() * percent).div_ceil(100).max(1) - 1;
            self.times.get(place).copied().unwrap_or(0)
        };
        let [min, median, p90, p99, max] = [0, 50, 90, 99, 100].map(at);
        format!("ns a call: min {min} median {median} p90 {p90} p99 {p99} max {max}")
    }
}

/// The token of an operator's ping.
const PING: u32 = 0;

impl Talk {
    /// The talking of cell `me`; nothing where it is alone.
    pub fn new(me: CellId, config: &Config, members: Membership) -> Option<Box<Self>> {
        let cells = config.cells.len();
        let vcpus = config.vms.iter().map(|vm| vm.vcpus as usize).sum();
        (cells > 1).then(|| {
            let LiveSet { epoch, incarnations, .. } = *members.live();
            let live = Live::new(me, epoch, incarnations);
            let exchange = Exchange::new(live, cells, vcpus, ROOM, PATIENCE_NS);
            Box::new(Self { exchange, members, pinging: None })
        })
    }
}

impl<M: Machine> LocalCell<M> {
    /// Looks at what the cells in `from` have written, does what they want, and writes what is to be written.
    pub fn talk(&mut self, from: CellSet) {
        let Some(mut talk) = self.talk.take() else { return };
        let now = self.out.machine.now();
        self.call_about_loans(|to, request, token| talk.exchange.call(to, request, token));
        self.send_messages(&mut talk);
        loop {
            self.run_errands(&mut talk);
            let event = talk.exchange.poll(from, now, self.out.machine.wires());
            let Some(event) = event else { break };
            self.heard(&mut talk, &event, now);
        }
        self.talk = Some(talk);
    }

    fn heard(&mut self, talk: &mut Talk, event: &Event, now: u64) {
        match *event {
            Event::Returned { token: PING, from, result } => {
                let Some(mut ping) = talk.pinging.take() else { return };
                match result {
                    Ok(Reply::Pong(value)) if value == ping.answered => {
                        ping.answered += 1;
                        if ping.times.len() < TIMED {
                            ping.times.push(now.saturating_sub(ping.since));
                        }
                        if ping.answered < ping.calls {
                            ping.since = now;
                            self.ping_again(talk, ping);
                        } else {
                            let (calls, summary) = (ping.calls, ping.summary());
                            self.say(&format!(
                                "cell {from} has answered {calls} calls; {summary}\n"
                            ));
                        }
                    }
                    Ok(other) => self.say(&format!("cell {from} answered nonsense: {other:?}\n")),
                    Err(_) => self.say(&format!("cell {from} died before it answered\n")),
                }
            }
            Event::Suspect(cell) => {
                self.say(&format!("cell {cell} is suspected: it does not answer\n"));
            }
            Event::Asked { from, request: Request::Loan(payload) } => {
                let answer = self.asked_about_loan(from, &payload);
                talk.exchange.answer(from, Reply::Loan(answer));
            }
            Event::Asked { from, request: Request::Visit(payload) } => {
                let answer = self.asked_about_visit(from, &payload);
                talk.exchange.answer(from, Reply::Visit(answer));
            }
            // The exchange asks for nothing else.
            Event::Asked { from, .. } => {
                talk.exchange.answer(from, Reply::Garbled);
            }
            Event::Returned { token, result, .. } if token >= lending::TOKENS => match result {
                Ok(Reply::Loan(payload)) => self.returned_about_loan(token, Some(&payload)),
                Ok(_) => self.returned_about_loan(token, Some(&Payload::default())),
                Err(_) => self.returned_about_loan(token, None),
            },
            Event::Returned { token, from, result } => {
                self.returned_about_visit(token, from, result.ok());
            }
            Event::Offered { from, vcpu, frozen } => match self.offered(from, vcpu, frozen) {
                Ok(who) if talk.exchange.accept(from) => _ = who,
                Ok(who) => self.not_arrived(who, from),
                Err(why) => _ = talk.exchange.answer(from, Reply::Refused(why as u32)),
            },
            Event::Arrived(vcpu) => self.arrived(vcpu),
            Event::Left { vcpu, to } => self.left(vcpu, to),
            Event::Stayed { vcpu, why } => {
                if let Some(who) = self.named(vcpu) {
                    self.stays(who, why);
                }
            }
            Event::Execute { vcpu, message } => self.execute_message(vcpu, message),
            Event::Sent { token: messages::TOKEN, result } => self.message_sent(result),
            // A VCPU that is lost has ended its VM already, and nobody searches.
            Event::Sent { .. } | Event::Found { .. } => {}
        }
    }

    fn ping_again(&mut self, talk: &mut Talk, ping: Pinging) {
        match talk.exchange.call(ping.to, &Request::Ping(ping.answered), PING) {
            Ok(()) => talk.pinging = Some(ping),
            Err(why) => self.say(&format!("cell {} can't be asked: {why:?}\n", ping.to)),
        }
    }

    /// Calls another cell so many times, one call after the other.
    pub(super) fn ping(&mut self, to: CellId, calls: u64) -> Result<String, String> {
        self.other(to, "ping")?;
        let since = self.out.machine.now();
        let Some(talk) = &mut self.talk else { return Ok(String::new()) };
        if talk.pinging.is_some() {
            return Err("ping: the last one has not ended".into());
        }
        let calls = calls.max(1);
        let times = Vec::with_capacity(TIMED.min(calls as usize));
        let ping = Pinging { to, calls, answered: 0, since, times };
        let request = Request::Ping(0);
        match talk.exchange.call(to, &request, PING) {
            Ok(()) => {
                talk.pinging = Some(ping);
                Ok(String::new())
            }
            Err(_) => Err(format!("ping: there is no cell {to} that lives")),
        }
    }
}
