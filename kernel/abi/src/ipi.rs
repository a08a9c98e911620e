//! The virtual board's IPI device ("HCPI"): how one CPU of a machine interrupts another.
//!
//! A real Malta has no such thing; a VM's board may. It lies among the board's own registers, where a real
//! board has two I2C lines, so that software finds out by reading [`ID`]. Registers are 32 bits wide, in
//! the machine's own byte order. A raised interrupt is delivered on Cause.IP3 until the CPU clears it.

/// Guest-physical address of the registers.
pub const BASE: u64 = 0x1f00_0b00;
/// Offset of the register to be read: [`ID_VALUE`] if the device is there.
pub const ID: u64 = 0x0;
/// What [`ID`] reads: "HCPI".
pub const ID_VALUE: u32 = 0x4843_5049;
/// Offset of the register to be written with a CPU's number: raises its interrupt.
pub const RAISE: u64 = 0x8;
/// Offset of the register to be written with the writing CPU's own number: ends its interrupt.
pub const CLEAR: u64 = 0x10;
