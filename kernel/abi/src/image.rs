//! The boot block: what the PROM must know before anything can allocate.
//!
//! Encoded at [`crate::map::BOOT_BLOCK`] by the host. The monitor image is *flat*: the bytes from
//! [`crate::map::MONITOR_VA`] to the end of initialised data, as linked, so that copying it into a
//! cell is one copy and one clear.

#[cfg(feature = "alloc")]
use crate::codec::Writer;
use crate::codec::{DecodeError, Reader, checksum};
use crate::ids::{CellId, MAX_NODES};
use crate::layout::Layout;

/// `"HNYBOOT1"`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"HNYBOOT1");
/// Encoded size in bytes.
pub const ENCODED_SIZE: usize = 104;

/// The fixed block that the PROM reads first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootBlock {
    /// Nodes and cells of the machine. [`Layout::cpus`] CPUs will check in.
    pub layout: Layout,
    /// Bytes of the flat monitor image at [`crate::map::MONITOR_BASE`].
    pub monitor_len: u64,
    /// Bytes the monitor occupies in its cell: image and zeroed data.
    pub monitor_mem: u64,
    /// Virtual address of the monitor's entry.
    pub monitor_entry: u64,
    /// [`checksum`] of the flat monitor image.
    pub monitor_sum: u64,
    /// Bytes of packed configuration at [`crate::map::CONFIG_BASE`].
    pub config_len: u64,
    /// [`checksum`] of the packed configuration.
    pub config_sum: u64,
}

impl BootBlock {
    /// Encodes the block, its own checksum last.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn encode(&self) -> [u8; ENCODED_SIZE] {
        let mut w = Writer::new();
        w.u64(MAGIC);
        let Layout { nodes, cpus_per_node, window, slice, kept, cell_of } = self.layout;
        w.u32(nodes);
        w.u32(cpus_per_node);
        for cell in cell_of {
            w.u8(cell.0);
        }
        for v in [
            window,
            slice,
            kept,
            self.monitor_len,
            self.monitor_mem,
            self.monitor_entry,
            self.monitor_sum,
            self.config_len,
            self.config_sum,
        ] {
            w.u64(v);
        }
        let sum = checksum(&w.bytes);
        w.u64(sum);
        let mut out = [0; ENCODED_SIZE];
        out.copy_from_slice(&w.bytes);
        out
    }

    /// Decodes a block.
    ///
    /// # Errors
    /// When it is too short, has another magic number, its checksum does not fit, or there is no such machine.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bytes =
            bytes.get(..ENCODED_SIZE).ok_or(DecodeError { at: 0, what: "a whole boot block" })?;
        let mut r = Reader::new(bytes);
        if r.u64()? != MAGIC {
            return Err(DecodeError { at: 0, what: "the boot block's magic number" });
        }
        let (nodes, cpus_per_node) = (r.u32()?, r.u32()?);
        let mut cell_of = [CellId(0); MAX_NODES];
        for cell in &mut cell_of {
            *cell = CellId(r.u8()?);
        }
        let (window, slice, kept) = (r.u64()?, r.u64()?, r.u64()?);
        let layout = Layout { nodes, cpus_per_node, window, slice, kept, cell_of };
        if !layout.is_sound() {
            return Err(DecodeError { at: 8, what: "a machine of nodes and cells" });
        }
        let block = Self {
            layout,
            monitor_len: r.u64()?,
            monitor_mem: r.u64()?,
            monitor_entry: r.u64()?,
            monitor_sum: r.u64()?,
            config_len: r.u64()?,
            config_sum: r.u64()?,
        };
        if r.u64()? != checksum(&bytes[..ENCODED_SIZE - 8]) {
            return Err(DecodeError { at: ENCODED_SIZE - 8, what: "the boot block's checksum" });
        }
        Ok(block)
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let block = BootBlock {
            layout: Layout {
                nodes: 2,
                cpus_per_node: 2,
                window: 64 << 20,
                slice: 8 << 20,
                kept: 48 << 20,
                cell_of: [0, 1, 0, 0, 0, 0, 0, 0].map(CellId),
            },
            monitor_len: 3,
            monitor_mem: 4,
            monitor_entry: u64::MAX,
            monitor_sum: 5,
            config_len: 6,
            config_sum: 7,
        };
        let bytes = block.encode();
        assert_eq!(BootBlock::decode(&bytes), Ok(block));
        for i in 0..bytes.len() {
            let mut bad = bytes;
            bad[i] ^= 0x10;
            assert!(BootBlock::decode(&bad).is_err(), "byte {i} flipped went unnoticed");
        }
    }
}
