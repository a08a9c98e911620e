//! Mistakes to seed into the monitor, so that whoever looks for mistakes can show that it would find them.
//!
//! The model checker seeds one or the other in its tests. A real monitor can be built with one as well, to judge the judge of the
//! fault campaigns (`docs/faults.md`): with the feature `mutants`, and the mistake's name in the variable [`VARIABLE`] of the
//! compiler's environment. Without that feature nothing is ever seeded, and the compiler removes every trace.

/// The variable of the compiler's environment that names the mistake of a monitor that is to have one.
pub const VARIABLE: &str = "HONEYCOMB_MUTANT";

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[$doc])* $name,)*
        }

        impl Mutant {
            /// All there are, with their names.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, stringify!($name)),)*];
        }
    };
}

mutants! {
    /// A line's commit word is written before its payload.
    CommitFirst,
    /// The epoch of a line is not looked at.
    NoEpochCheck,
    /// Neither epoch nor incarnation of a line are looked at, nor whether its writer lives.
    StaleLines,
    /// A callee executes what is in its line whenever it looks.
    NoDuplicateCheck,
    /// A caller takes any reply for the one that it waits for.
    AnyReply,
    /// A late call is repeated under a new sequence number.
    DoubleRetry,
    /// Sequence numbers go on when one side has rebooted.
    SequenceKept,
    /// A call that is outstanding in a new epoch is not written again.
    RequestNotRepeated,
    /// A reply is not written again in a new epoch.
    ReplyNotRepeated,
    /// What a cell said about where a VCPU is, it says again in the next epoch.
    AnswersOutlast,
    /// A call that is late fails.
    LateIsDead,
    /// A call whose line can't be written fails.
    UnreachableIsDead,
    /// A message is executed by whoever gets it.
    HintTrusted,
    /// A message to a VCPU that is on its way is acknowledged, for whoever gets the VCPU to execute.
    AcknowledgedEarly,
    /// A message is executed again when it comes again.
    MessageTwice,
    /// A VCPU does not take along what it has executed.
    MarksLeftBehind,
    /// A sender's messages are told apart without its incarnation.
    SenderIncarnationIgnored,
    /// Several messages to one VCPU are on their way at a time.
    OutOfOrder,
    /// A message fails when the cell it was sent to dies, wherever the VCPU is.
    GivenUpEarly,
    /// A sender is told of its message's failure, and keeps the message.
    ToldTwice,
    /// A VCPU is lost when the first survivor asked does not know it.
    OneAnswerIsEnough,
    /// What was asked before a failure counts after it.
    OldAnswersCount,
    /// A hint replaces a newer one.
    OldHintTaken,
    /// A cell to which a VCPU was offered has it from then on.
    OwnedFromOffer,
    /// A cell that has offered a VCPU has it until the other one has it for sure.
    OwnedUntilTaken,
    /// A cell takes a VCPU back from a dead cell that it had given it to.
    TakenBack,
    /// A VCPU that was on its way from a cell that died is forgotten.
    ArrivalForgotten,
    /// A VCPU that was on its way to a cell that died is forgotten.
    DepartureForgotten,
    /// A cell that one cell suspects is excluded.
    OneSuspectsForAll,
    /// A cell that has proposed a live set adds to it what another one proposes.
    ProposalGrows,
    /// A cell goes on to the next epoch without the others' consent.
    AgreesAlone,
    /// A cell that has been excluded goes on.
    ExclusionIgnored,
    /// Of two halves each goes on.
    TiesWin,
    /// Cells that can't be reached are taken for dead.
    CutIsDead,
    /// A cell that is being let in is not heard until it is in.
    NewcomerUnheard,
    /// A cell that is being let in is not asked.
    NewcomerUnasked,
    /// A cell that is being let in takes back what it has voted for.
    VoteTakenBack,
    /// A cell that could not be let in is never let in.
    DroppedForGood,
    /// What a cell says counts whichever agreement it speaks of.
    BallotOfAnyEpoch,
    /// Cells that have been given up are not switched off.
    FenceForgotten,
    /// A cell that was suspected once stays so.
    SuspicionKept,
    /// The call to a cell that has died does not fail.
    CallNotUnwound,
    /// A dead cell is still asked for a VCPU that it had.
    DeadAsked,
    /// With any cell one VM ends that does not depend on it: the first one of the cell that is the lowest then.
    OneTooMany,
    /// A VM of which a dead cell held pages goes on.
    LenderForgotten,
    /// A VM of which a dead cell ran a VCPU goes on.
    VcpuForgotten,
    /// What is left of a VM whose home has died goes on.
    VisitKept,
    /// The end of a VM is told twice.
    EndToldTwice,
    /// What a dead cell has lent is given to VMs.
    LoanKept,
    /// What a dead cell had borrowed is free at once.
    QuarantineSkipped,
    /// The pages of a VM are free at once whose VCPU a dead cell's CPU may still run.
    NothingHeld,
    /// Lines that were lost with a dead cell's CPUs are not discarded.
    LinesKept,
    /// A cell may be brought back while what depended on its predecessor runs.
    SettledTooSoon,
    /// Who takes the lead over takes the losses that there are for reported.
    LossForgotten,
    /// A cell's loss is reported again and again.
    LossToldTwice,
    /// A load of guest memory that is gone is not passed over.
    LoadNotPassedOver,
    /// The first load of what copies memory carefully has no entry in the exception table.
    CopyNotFixedUp,
}

#[cfg(test)]
std::thread_local! {
    static SEEDED: core::cell::Cell<Option<Mutant>> = const { core::cell::Cell::new(None) };
}

/// Seeds a mistake, or none, in this thread.
#[cfg(test)]
pub(crate) fn seed(mutant: Option<Mutant>) {
    SEEDED.set(mutant);
}

/// Whether this mistake is to be made.
#[cfg(test)]
pub(crate) fn seeded(mutant: Mutant) -> bool {
    SEEDED.get() == Some(mutant)
}

/// The mistake that this monitor is built with.
#[cfg(all(feature = "mutants", not(test)))]
const BUILT_WITH: Option<Mutant> = match option_env!("HONEYCOMB_MUTANT") {
    Some(name) => Some(named(name)),
    None => None,
};

/// The mistake of this name; there must be one.
#[cfg(all(feature = "mutants", not(test)))]
const fn named(name: &str) -> Mutant {
    let mut i = 0;
    while i < Mutant::ALL.len() {
        let (mutant, other) = Mutant::ALL[i];
        if is_same(name.as_bytes(), other.as_bytes()) {
            return mutant;
        }
        i += 1;
    }
    panic!("HONEYCOMB_MUTANT names no mistake that a monitor can be built with")
}

#[cfg(all(feature = "mutants", not(test)))]
const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// Whether this mistake is to be made.
#[cfg(all(feature = "mutants", not(test)))]
#[must_use]
pub const fn seeded(mutant: Mutant) -> bool {
    matches!(BUILT_WITH, Some(built) if built as u8 == mutant as u8)
}

/// Whether this mistake is to be made: never.
#[cfg(not(any(feature = "mutants", test)))]
#[must_use]
pub const fn seeded(_: Mutant) -> bool {
    false
}
