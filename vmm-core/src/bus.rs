//! What the CPU sees beyond memory.

use abi::Gpa;

/// No device answers: the CPU takes a bus error exception (DBE for data, IBE for a fetch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusError;

/// The board's devices, as the CPU's loads and stores see them.
///
/// Values are what the CPU's register holds (zero-extended): the board knows the guest's byte order
/// and does whatever lane swapping the real bridge does. `size` is 1, 2, 4 or 8; an access never
/// crosses a naturally aligned unit of its size. `now` is the VM's virtual time in nanoseconds.
pub trait Bus {
    /// A load from where no memory is.
    ///
    /// # Errors
    /// [`BusError`] when nothing answers.
    fn read(&mut self, gpa: Gpa, size: u8, now: u64) -> Result<u64, BusError>;

    /// A store to where no memory is.
    ///
    /// # Errors
    /// [`BusError`] when nothing answers.
    fn write(&mut self, gpa: Gpa, size: u8, value: u64, now: u64) -> Result<(), BusError>;

    /// The levels of the CPU's hardware interrupt pins: bit `n` is `Cause.IP[n + 2]`, n in 0..=5.
    /// (The CP0 timer is the CPU's own and not among them.) Cheap: it is asked at every poll.
    fn interrupts(&mut self, now: u64) -> u8;

    /// When a device wants to be asked again though the CPU does nothing (its next interrupt edge),
    /// in virtual nanoseconds; `None`: never.
    fn deadline(&self, now: u64) -> Option<u64>;

    /// Whether the access just made asked the engine to stop (power-off, reset, a warp of time, a
    /// full console). Asked after every `read` and `write`.
    fn wants_exit(&self) -> bool;
}
