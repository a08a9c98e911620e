//! What each must do: the rules that the monitor relies on.

use super::report::{MODES, Mode, Report, Words};

/// A value of Status, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Status(usize);

impl Status {
    /// The one with this number in the guest's table.
    pub const fn new(number: usize) -> Self {
        Self(number)
    }
    const fn cu1(self) -> bool {
        self.0 & 1 != 0
    }
    const fn fr(self) -> bool {
        self.0 & 2 != 0
    }
    const fn px(self) -> bool {
        self.0 & 4 != 0
    }
    const fn ux(self) -> bool {
        self.0 & 16 != 0
    }
    /// Whether 64-bit operations are enabled. (In supervisor mode QEMU always enables them; the
    /// manual wants SX.)
    const fn wide(self, mode: Mode) -> bool {
        matches!(mode, Mode::Supervisor) || self.px() || self.ux()
    }
}

/// Letters of outcomes.
pub const EXECUTES: char = 'X';
const RESERVED: char = 'R';
const COP0: char = '0';
const COP1: char = '1';
const COP2: char = '2';
/// It never gets beyond itself; interrupts are taken.
const SPINS: char = 'I';

/// What a group may be to a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For the kernel only: coprocessor 0 unusable, always.
    Privileged,
    /// Reads what HWREna, which is 0, allows: reserved.
    Hidden,
    /// No state but the guest's own: executes.
    Harmless,
    /// Likewise, if 64-bit operations are enabled.
    Wide,
    /// Always this exception.
    Always(char),
    /// Executes if CU1; else coprocessor 1 unusable.
    Float,
    /// Likewise, with 64-bit operations only.
    WideFloat,
    /// With 64-bit registers only, which it checks before CU1.
    PairedFloat,
    /// Undefined or not implemented: reserved.
    Reserved,
    /// Undefined; executes and does nothing.
    Nothing,
}

/// The groups by name.
const KINDS: [(&str, Kind); 48] = [
    ("mfc0", Kind::Privileged),
    ("dmfc0", Kind::Privileged),
    ("mtc0", Kind::Privileged),
    ("dmtc0", Kind::Privileged),
    ("rdpgpr-wrpgpr", Kind::Privileged),
    ("di-ei", Kind::Privileged),
    ("mt-dmt-emt-dvpe-evpe", Kind::Privileged),
    ("mt-mftr-mttr", Kind::Privileged),
    ("cop0-undefined", Kind::Privileged),
    ("tlbr-tlbwi-tlbwr-tlbp", Kind::Privileged),
    ("tlbinv-tlbinvf", Kind::Privileged),
    ("eret", Kind::Privileged),
    ("deret", Kind::Privileged),
    ("wait", Kind::Privileged),
    ("cop0-co-any", Kind::Privileged),
    ("cache", Kind::Privileged),
    ("rdhwr", Kind::Hidden),
    ("sync", Kind::Harmless),
    ("synci", Kind::Harmless),
    ("pref", Kind::Harmless),
    ("ll-sc", Kind::Harmless),
    ("lld-scd", Kind::Wide),
    ("jr.hb-jalr.hb", Kind::Harmless),
    ("ehb-ssnop-pause", Kind::Harmless),
    ("syscall", Kind::Always('S')),
    ("break", Kind::Always('B')),
    ("teq", Kind::Always('P')),
    ("sdbbp", Kind::Always(SPINS)),
    ("mfc1-mtc1", Kind::Float),
    ("dmfc1-dmtc1", Kind::WideFloat),
    ("mfhc1-mthc1", Kind::Float),
    ("cfc1-ctc1", Kind::Float),
    ("add.s-add.d", Kind::Float),
    ("add.ps", Kind::PairedFloat),
    ("c.eq.d-bc1t", Kind::Float),
    ("lwc1-swc1-ldc1-sdc1", Kind::Float),
    ("lwxc1-ldxc1", Kind::Float),
    ("madd.d", Kind::Float),
    ("movf", Kind::Float),
    ("cop2", Kind::Reserved),
    ("lwc2-ldc2-swc2-sdc2", Kind::Always(COP2)),
    ("special-5", Kind::Nothing),
    ("special-undefined", Kind::Reserved),
    ("regimm-undefined", Kind::Reserved),
    ("mdmx-msa", Kind::Nothing),
    ("opcode-1d", Kind::Reserved),
    ("opcode-3b", Kind::Reserved),
    ("special3-high", Kind::Reserved),
];

/// Groups in which a VM's virtual CPU may differ from the real one, and why that does no harm.
pub const MODEL: [(&str, &str); 3] = [
    ("sdbbp", "reserved: the virtual CPU has no Debug Mode"),
    ("special-5", "reserved where it is interpreted: it is QEMU's own, and of no use to a guest"),
    ("mdmx-msa", "reserved where it is interpreted, as the manual has it"),
];

/// What `word` of a group is.
pub fn kind(group: &str, word: u32) -> Option<Kind> {
    let function = word & 63;
    match group {
        // mul, clz, clo; dclz, dclo. (With rd not 0 the others name an accumulator of the DSP module.)
        "special2" => Some(match function {
            2 | 0x20 | 0x21 => Kind::Harmless,
            0x24 | 0x25 => Kind::Wide,
            _ => Kind::Reserved,
        }),
        // ext, ins; dextm, dextu, dext, dinsm, dinsu, dins.
        "special3" => Some(match function {
            0 | 4 => Kind::Harmless,
            1..=7 => Kind::Wide,
            _ => Kind::Reserved,
        }),
        _ => KINDS.iter().find(|(name, _)| *name == group).map(|(_, kind)| *kind),
    }
}

impl Kind {
    /// The letter of its outcome.
    pub fn outcome(self, mode: Mode, status: Status) -> char {
        match self {
            Self::Privileged => COP0,
            Self::Hidden | Self::Reserved => RESERVED,
            Self::Harmless | Self::Nothing => EXECUTES,
            Self::Always(letter) => letter,
            Self::Wide if status.wide(mode) => EXECUTES,
            Self::Wide => RESERVED,
            Self::Float | Self::WideFloat if !status.cu1() => COP1,
            Self::Float => EXECUTES,
            Self::WideFloat => Self::Wide.outcome(mode, status),
            Self::PairedFloat if !status.fr() => RESERVED,
            Self::PairedFloat => Self::Float.outcome(mode, status),
        }
    }
}

/// What an access to `address` gives: `kind` is 0 for a load, 1 a store, 2 a fetch.
pub fn access(address: u64, mode: Mode, sx: bool, ux: bool) -> char {
    /// Bits of an address within a segment that the TLB translates.
    const SEGMENT: u64 = 1 << 42;
    let supervisor = mode == Mode::Supervisor;
    let refill = |wide: bool| if wide { 'x' } else { 'r' };
    match address {
        // useg
        0..0x8000_0000 => refill(ux),
        // xuseg
        0x8000_0000..SEGMENT if ux => refill(true),
        // xsseg
        0x4000_0000_0000_0000..0x4000_0400_0000_0000 if supervisor && sx => refill(true),
        // cksseg: the kernel's KX, always 1, decides.
        0xffff_ffff_c000_0000..0xffff_ffff_e000_0000 if supervisor => refill(true),
        _ => 'E',
    }
}

/// What a report should have said and did not.
pub fn judge(report: &Report) -> Vec<String> {
    let mut wrong = report.changed.clone();
    for words in &report.words {
        let Some(kind) = kind(&words.group, words.first) else {
            wrong.push(format!("{} {:08x}: no rule says what it does", words.group, words.first));
            continue;
        };
        for (mode, found) in MODES.into_iter().zip(&words.outcomes) {
            let wanted: String =
                (0..found.len()).map(|number| kind.outcome(mode, Status::new(number))).collect();
            if wanted != *found {
                let Words { group, first, .. } = words;
                wrong.push(format!("{group} {first:08x} in {mode:?}: {found}, not {wanted}"));
            }
        }
    }
    for place in &report.places {
        for (mode, found) in MODES.into_iter().zip(&place.outcomes) {
            let wanted: String = (0..found.len())
                .map(|i| access(place.address, mode, (i / 3) & 1 != 0, (i / 6) & 1 != 0))
                .collect();
            if wanted != *found {
                wrong.push(format!("at {:016x} in {mode:?}: {found}, not {wanted}", place.address));
            }
        }
    }
    wrong
}

/// Where a VM's report differs from the bare machine's, and may not.
pub fn differences(bare: &Report, vm: &Report) -> Vec<String> {
    let mut wrong = vm.changed.clone();
    if bare.words.len() != vm.words.len() || bare.places.len() != vm.places.len() {
        wrong.push("its table has other lines than the bare machine's".into());
    }
    for (bare, vm) in bare.words.iter().zip(&vm.words) {
        if bare == vm {
            continue;
        }
        let same = (&bare.group, bare.first, bare.count) == (&vm.group, vm.first, vm.count);
        let may = MODEL.iter().any(|(group, _)| *group == vm.group);
        let allowed = may
            && bare.outcomes.iter().zip(&vm.outcomes).all(|(bare, vm)| {
                bare.chars().zip(vm.chars()).all(|(bare, vm)| vm == bare || vm == RESERVED)
            });
        if !same || !allowed {
            let Words { group, first, outcomes: [supervisor, user], .. } = vm;
            wrong.push(format!("{group} {first:08x}: {supervisor} {user}"));
        }
    }
    for (bare, vm) in bare.places.iter().zip(&vm.places) {
        if bare != vm {
            let [supervisor, user] = &vm.outcomes;
            wrong.push(format!("at {:016x}: {supervisor} {user}", vm.address));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::super::report::{Place, Words};
    use super::*;

    /// A report of one instruction and one address, as the rules have it.
    fn good() -> Report {
        let letters = |letter: &str, count| letter.repeat(count);
        let words = |group: &str, letter| Words {
            group: group.into(),
            first: 0,
            count: 1,
            outcomes: [letters(letter, 32), letters(letter, 32)],
        };
        let place = Place {
            address: 0xffff_ffff_8000_0000,
            outcomes: [letters("E", 12), letters("E", 12)],
        };
        let words = vec![words("mfc0", "0"), words("mdmx-msa", "X")];
        Report { words, places: vec![place], changed: Vec::new() }
    }

    #[test]
    fn every_breach_is_found() {
        assert_eq!(judge(&good()), [""; 0]);
        let mut open = good();
        open.words[0].outcomes[1].replace_range(7..8, "X");
        assert_eq!(judge(&open).len(), 1);
        let mut open = good();
        open.places[0].outcomes[0].replace_range(0..1, "x");
        assert_eq!(judge(&open).len(), 1);
        let mut open = good();
        open.words[0].group = "unheard-of".into();
        assert_eq!(judge(&open).len(), 1);
        let mut open = good();
        open.changed.push("changed 40090000 Status".into());
        assert_eq!(judge(&open).len(), 1);
    }

    #[test]
    fn a_vm_may_differ_only_where_it_is_written() {
        let bare = good();
        assert_eq!(differences(&bare, &bare), [""; 0]);
        let mut vm = good();
        vm.words[1].outcomes[0] = "R".repeat(32);
        assert_eq!(differences(&bare, &vm), [""; 0]);
        vm.words[1].outcomes[0] = "B".repeat(32);
        assert_eq!(differences(&bare, &vm).len(), 1);
        let mut vm = good();
        vm.words[0].outcomes[0] = "R".repeat(32);
        assert_eq!(differences(&bare, &vm).len(), 1);
        let mut vm = good();
        vm.places[0].outcomes[0] = "x".repeat(12);
        assert_eq!(differences(&bare, &vm).len(), 1);
        let mut vm = good();
        vm.words.pop();
        assert_eq!(differences(&bare, &vm).len(), 1);
    }

    #[test]
    fn segments_end_where_they_should() {
        use Mode::{Supervisor, User};
        assert_eq!(access(0x7fff_fffc, User, false, false), 'r');
        assert_eq!(access(0x8000_0000, User, true, false), 'E');
        assert_eq!(access(0x3ff_ffff_fffc, User, false, true), 'x');
        assert_eq!(access(0x400_0000_0000, User, true, true), 'E');
        assert_eq!(access(0x4000_0000_0000_0000, User, true, true), 'E');
        assert_eq!(access(0x4000_0000_0000_0000, Supervisor, true, false), 'x');
        assert_eq!(access(0xffff_ffff_dfff_fffc, Supervisor, false, false), 'x');
        assert_eq!(access(0xffff_ffff_e000_0000, Supervisor, true, true), 'E');
    }
}
