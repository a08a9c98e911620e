//! The monitor's critical regions, and which function an address belongs to.

use crate::run::count::symbols;
use abi::map;
use anyhow::{Result, bail};

/// A part of the monitor in which a death may leave something half done.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// What it is called.
    pub name: &'static str,
    /// Whether another cell must have died for it to be executed at all, or to mean something.
    pub after_a_death: bool,
    /// Parts of the names of its functions.
    functions: &'static [&'static str],
}

/// All that are aimed at.
pub const REGIONS: [Region; 6] = [
    Region {
        name: "mailbox",
        after_a_death: false,
        functions: &[
            "cell::talk::line::write",
            "talk::exchange::Exchange>::offer",
            "talk::exchange::Exchange>::call",
            "talk::exchange::Exchange>::dispatch",
            "talk::rpc::Server>::answer",
            "talk::message::Outbox>::take",
        ],
    },
    Region {
        name: "pmap",
        after_a_death: false,
        functions: &[
            "pmap::Pmap>::touch",
            "pmap::Pmap>::replace",
            "pmap::replica::Replica>::learn",
            "frames::Frames>::take",
            "frames::Frames>::release",
            "frames::Frames>::end_move",
            "memmap::pool::Pool>::change",
        ],
    },
    Region {
        name: "migration",
        after_a_death: false,
        functions: &[
            "LocalCell<kernel::host::Host>>::depart",
            "LocalCell<kernel::host::Host>>::send_off",
            "LocalCell<kernel::host::Host>>::migrate",
            "visit::Carried>::parcel",
            "visit::Carried>::open",
            "kernel::host::Host as cell::local::Machine>::fetch",
        ],
    },
    Region {
        name: "registry",
        after_a_death: false,
        functions: &[
            "talk::registry::Registry>::learn",
            "LocalCell<kernel::host::Host>>::moved",
            "LocalCell<kernel::host::Host>>::execute_message",
        ],
    },
    Region {
        name: "loan",
        after_a_death: false,
        functions: &[
            "loan::ledger::Loans>::give",
            "loan::ledger::Loans>::take",
            "loan::ledger::Loans>::lend",
            "loan::ledger::Loans>::recall",
            "loan::ledger::Loans>::answered",
            "frames::Frames>::lend",
            "frames::Frames>::unborrow",
            "frames::Frames>::take_back",
            "LocalCell<kernel::host::Host>>::loan_answered",
        ],
    },
    Region {
        name: "recovery",
        after_a_death: true,
        functions: &[
            "talk::agree::Agreement>::agree",
            "talk::agree::Agreement>::prevails",
            "talk::exchange::Exchange>::agreed",
            "talk::exchange::Exchange>::cell_down",
            "kernel::controller::node_off",
            "kernel::cells::settled",
            "LocalCell<kernel::host::Host>>::discard_lines",
            "loan::ledger::Loans>::died",
            "loan::ledger::Loans>::fenced",
            "memmap::Memmap>::lose",
        ],
    },
];

/// The functions of a monitor.
#[derive(Debug)]
pub struct Functions {
    /// Address, size and name, by address.
    all: Vec<(u64, u64, String)>,
}

impl Functions {
    /// Those of the monitor's ELF file.
    ///
    /// # Errors
    /// It is none, or a region's function is not in it.
    pub fn of(elf: &[u8]) -> Result<Self> {
        let mut all: Vec<_> = symbols(elf)?
            .into_iter()
            .filter(|symbol| symbol.is_code && symbol.size != 0)
            .map(|symbol| (symbol.at, symbol.size, symbol.name))
            .collect();
        all.sort();
        all.dedup();
        let functions = Self { all };
        for region in &REGIONS {
            if let Some(none) = region.functions.iter().find(|f| functions.called(f).is_empty()) {
                bail!(
                    "region {}: the monitor has no function `{none}`: take it off the list, or the one that it has become part of",
                    region.name
                );
            }
        }
        Ok(functions)
    }

    /// Where the functions of a region begin, with their names.
    pub fn entries(&self, region: &Region) -> Vec<(u64, &str)> {
        region.functions.iter().flat_map(|part| self.called(part)).collect()
    }

    fn called(&self, part: &str) -> Vec<(u64, &str)> {
        let is = |name: &str| name.find(part).is_some_and(|at| ends(&name[at + part.len()..]));
        self.all
            .iter()
            .filter(|(_, _, name)| is(name))
            .map(|(at, _, name)| (*at, &**name))
            .collect()
    }

    /// What executes at an address: a function of the monitor without its type parameters, the PROM, or a guest.
    pub fn name(&self, pc: u64) -> String {
        if pc < map::MONITOR_VA {
            let is_prom = (0xffff_ffff_8000_0000..0xffff_ffff_c000_0000).contains(&pc);
            return if is_prom { "PROM" } else { "guest" }.into();
        }
        let after = self.all.partition_point(|(at, _, _)| *at <= pc);
        match after.checked_sub(1).map(|i| &self.all[i]) {
            Some((at, size, name)) if pc < at + size => plain(name),
            _ => "monitor (no function)".into(),
        }
    }
}

/// Whether a name is over, but for type parameters.
fn ends(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with("::<")
}

/// A name without the type parameters at its end.
fn plain(name: &str) -> String {
    let mut name = name;
    while name.ends_with('>') {
        let Some(cut) = name.find("::<") else { break };
        name = &name[..cut];
    }
    name.replace("<kernel::host::Host>", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions() -> Functions {
        let all = vec![
            (
                map::MONITOR_VA,
                0x40,
                "<cell::pmap::Pmap>::touch::<<kernel::memory::Memory>::place>".into(),
            ),
            (map::MONITOR_VA + 0x100, 8, "<cell::pmap::Pmap>::touched".into()),
        ];
        Functions { all }
    }

    #[test]
    fn a_function_is_called_by_the_end_of_its_name() {
        let functions = functions();
        assert_eq!(functions.called("pmap::Pmap>::touch").len(), 1);
        assert_eq!(functions.called("pmap::Pmap>::tou").len(), 0);
    }

    #[test]
    fn addresses_have_names() {
        let functions = functions();
        assert_eq!(functions.name(map::MONITOR_VA + 0x3c), "<cell::pmap::Pmap>::touch");
        assert_eq!(functions.name(map::MONITOR_VA + 0x40), "monitor (no function)");
        assert_eq!(functions.name(0xffff_ffff_8010_0180), "PROM");
        assert_eq!(functions.name(0x4000_0000_0010_0180), "guest");
    }
}
