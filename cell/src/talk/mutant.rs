//! Faults to seed into the protocols, so that the model checker can show that it would find them. Outside of
//! tests nothing is ever seeded, and the compiler removes every trace.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
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
    /// A VM ends with any cell, whether it depends on it or not.
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
    /// Who takes the lead over takes the losses that there are for reported.
    LossForgotten,
    /// A cell's loss is reported again and again.
    LossToldTwice,
}

#[cfg(test)]
std::thread_local! {
    static SEEDED: core::cell::Cell<Option<Mutant>> = const { core::cell::Cell::new(None) };
}

/// Seeds a fault, or none, in this thread.
#[cfg(test)]
pub(crate) fn seed(mutant: Option<Mutant>) {
    SEEDED.set(mutant);
}

/// Whether this fault is to be shown.
#[cfg(test)]
pub(crate) fn seeded(mutant: Mutant) -> bool {
    SEEDED.get() == Some(mutant)
}

/// Whether this fault is to be shown: never.
#[cfg(not(test))]
pub(crate) const fn seeded(_: Mutant) -> bool {
    false
}
