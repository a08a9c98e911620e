//! Instructions by their encodings: markers, and what a guest may have meant by a trap.

/// What an instruction is to the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `lui $zero, N`: a marker. It counts as nothing.
    Marker(u16),
    /// `eret`.
    Eret,
    /// It can trap by what it is: its encoding without general registers and immediates.
    Sensitive(u32),
    /// Anything else.
    Other,
}

/// `eret`.
pub const ERET: u32 = 0x4200_0018;

/// What an instruction is.
pub fn classify(word: u32) -> Class {
    match word >> 26 {
        0x0f if word >> 16 & 0x3ff == 0 => Class::Marker(word as u16),
        // SPECIAL: syscall and break, whose code is free.
        0x00 if word & 0x3e == 0x0c => Class::Sensitive(word & 0x3f),
        0x10 if word == ERET => Class::Eret,
        // COP0: an operation; `di` and `ei`; a move, by register and select.
        0x10 if word >> 25 & 1 == 1 => Class::Sensitive(word & 0xfe00_003f),
        0x10 if word >> 21 & 31 == 0x0b => Class::Sensitive(word & 0xffe0_f827),
        0x10 => Class::Sensitive(word & 0xffe0_f807),
        // CACHE, by its operation.
        0x2f => Class::Sensitive(word & 0xfc1f_0000),
        // rdhwr.
        0x1f if word & 0x3f == 0x3b => Class::Sensitive(word & 0xfc00_f83f),
        _ => Class::Other,
    }
}

/// Whether an instruction has a delay slot: a jump or a branch.
pub fn is_branch(word: u32) -> bool {
    match word >> 26 {
        // jr, jalr.
        0x00 => matches!(word & 0x3f, 8 | 9),
        // bltz and bgez, and the forms that are likely or link.
        0x01 => matches!(word >> 16 & 31, 0..=3 | 16..=19),
        // j, jal; four branches, and their likely forms.
        0x02..=0x07 | 0x14..=0x17 => true,
        // bc1.
        0x11 => word >> 21 & 31 == 8,
        _ => false,
    }
}

/// What a [`Class::Sensitive`] or `eret` encoding is called; 0 is no instruction in particular.
pub fn name(word: u32) -> String {
    let (rd, select) = (word >> 11 & 31, word & 7);
    match word {
        0 => "-".into(),
        0x0c => "syscall".into(),
        0x0d => "break".into(),
        _ => match (word >> 26, word >> 21 & 31) {
            (0x10, 0x00) => format!("mfc0 {rd}.{select}"),
            (0x10, 0x01) => format!("dmfc0 {rd}.{select}"),
            (0x10, 0x04) => format!("mtc0 {rd}.{select}"),
            (0x10, 0x05) => format!("dmtc0 {rd}.{select}"),
            (0x10, 0x0b) => if word & 0x20 == 0 { "di" } else { "ei" }.into(),
            (0x10, 0x10..) => match word & 0x3f {
                0x01 => "tlbr".into(),
                0x02 => "tlbwi".into(),
                0x03 => "tlbinv".into(),
                0x04 => "tlbinvf".into(),
                0x06 => "tlbwr".into(),
                0x08 => "tlbp".into(),
                0x18 => "eret".into(),
                0x1f => "deret".into(),
                0x20 => "wait".into(),
                _ => format!("cop0 0x{word:08x}"),
            },
            (0x2f, _) => format!("cache 0x{:02x}", word >> 16 & 31),
            (0x1f, _) => format!("rdhwr {rd}"),
            _ => format!("0x{word:08x}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_lui_to_register_zero_alone() {
        assert_eq!(classify(0x3c00_1234), Class::Marker(0x1234));
        assert_eq!(classify(0x3c01_1234), Class::Other, "lui $1");
        assert_eq!(classify(0x0000_0000), Class::Other, "nop");
    }

    #[test]
    fn branches_have_a_delay_slot() {
        // jr $ra; bal; beq; bnel; jal; bc1t.
        for word in [0x03e0_0008, 0x0411_0001, 0x1085_0003, 0x5485_0003, 0x0c00_0000, 0x4501_0002] {
            assert!(is_branch(word), "{word:#x}");
        }
        // addu; syscall; synci; lw; mfc1.
        for word in [0x0085_1021, 0x0000_000c, 0x041f_0000, 0x8c82_0000, 0x4402_0000] {
            assert!(!is_branch(word), "{word:#x}");
        }
    }

    #[test]
    fn what_traps_is_named() {
        for (word, expected) in [
            (0x4008_6000, "mfc0 12.0"),
            (0x4088_6000, "mtc0 12.0"),
            (0x40a8_7801, "dmtc0 15.1"),
            (0x4168_6000, "di"),
            (0x4160_6020, "ei"),
            (0x4200_0020, "wait"),
            (0x4200_0006, "tlbwr"),
            (0x0000_000c, "syscall"),
            (0x0012_34cc, "syscall"),
            (0x0007_000d, "break"),
            (0x7c03_e83b, "rdhwr 29"),
            (0xbc55_0010, "cache 0x15"),
        ] {
            let Class::Sensitive(what) = classify(word) else { panic!("{word:08x}") };
            assert_eq!(name(what), expected);
        }
        assert_eq!(classify(0x4200_0018), Class::Eret);
        assert_eq!(name(0x4200_0018), "eret");
        assert_eq!(classify(0x8c82_0004), Class::Other, "a load");
        assert_eq!(name(0), "-");
    }
}
