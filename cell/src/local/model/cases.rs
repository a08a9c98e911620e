//! What is searched.

use abi::PAGE_SIZE;
use abi::config::{self, Blob, Config, Placement, Restart};

/// What is in a case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Cells, of one node each.
    pub cells: usize,
    /// CPUs of each: 1 or 2.
    pub cpus: u8,
    /// Pages of each cell's memory.
    pub pages: u64,
    /// The VMs, which start when their homes do.
    pub vms: Vec<Vm>,
    /// What operators say, and to which cell.
    pub commands: Vec<(u8, &'static str)>,
    /// Deaths.
    pub deaths: u8,
    /// How often a cell stops for a while, or until the others have switched it off.
    pub hangs: u8,
    /// Dead cells that come back.
    pub reboots: u8,
    /// How often a cell grows impatient.
    pub lates: u8,
    /// False alarms.
    pub alarms: u8,
    /// Whether the others go on between two effects of what a cell does.
    pub torn: bool,
    /// Whether the CPUs of a dead cell stop some time after it died.
    pub late_stops: bool,
}

/// A VM.
#[derive(Clone, Copy, Debug)]
pub struct Vm {
    /// A bit for each cell that it may use; the lowest is its home.
    pub cells: u8,
    /// Pages of its memory.
    pub pages: u64,
    pub vcpus: u32,
    /// It is spread over its cells.
    pub spread: bool,
    pub restart: Restart,
}

/// A VM of one cell.
pub const fn local(cell: u8, pages: u64) -> Vm {
    Vm { cells: 1 << cell, pages, vcpus: 1, spread: false, restart: Restart::Never }
}

/// A VM of two VCPUs and a page in each of its two cells.
pub const fn spread(cells: u8) -> Vm {
    Vm { cells, pages: 2, vcpus: 2, spread: true, restart: Restart::Never }
}

impl Default for Case {
    fn default() -> Self {
        Self {
            name: "",
            cells: 3,
            cpus: 1,
            pages: 4,
            vms: Vec::new(),
            commands: Vec::new(),
            deaths: 0,
            hangs: 0,
            reboots: 0,
            lates: 0,
            alarms: 0,
            torn: false,
            late_stops: false,
        }
    }
}

impl Case {
    /// The machine's configuration. VMs are called by their numbers.
    pub fn config(&self) -> Config {
        let vm = |(number, vm): (usize, &Vm)| config::Vm {
            name: number.to_string(),
            kernel: Blob::default(),
            initrd: Blob::default(),
            cmdline: String::new(),
            vcpus: vm.vcpus,
            memory: vm.pages * PAGE_SIZE,
            cells: vm.cells,
            placement: if vm.spread { Placement::Spread } else { Placement::Local },
            weight: 100,
            budget: 0,
            clock_scale: 1,
            restart: vm.restart,
            autostart: true,
            engine: config::Engine::Auto,
            cpu: config::Cpu::Honeycomb,
        };
        Config {
            machine: config::Machine {
                nodes: self.cells as u32,
                cpus_per_node: u32::from(self.cpus),
                window_per_node: 0,
                slice_per_node: self.pages * PAGE_SIZE,
                monitor_per_node: abi::map::KEPT_USUAL,
                icount: true,
                seed: 1,
                console_rate: 1 << 20,
                epoch_s: 0,
                stay: true,
            },
            cells: (0..self.cells).map(|cell| config::Cell { nodes: vec![cell as u8] }).collect(),
            vms: self.vms.iter().enumerate().map(vm).collect(),
            script_len: 0,
        }
    }
}

/// Two deaths, of cells that have VMs.
pub fn two_deaths() -> Case {
    Case {
        name: "3 cells, 2 deaths",
        vms: vec![local(0, 1), local(1, 1)],
        deaths: 2,
        ..Case::default()
    }
}

/// A death while a VM is being spread over two cells: pages are lent, a VCPU goes.
pub fn spread_once() -> Case {
    Case {
        name: "3 cells, a VM of two, a death",
        vms: vec![spread(0b011), local(2, 1)],
        deaths: 1,
        ..Case::default()
    }
}

/// The same, with two deaths.
pub fn spread_twice() -> Case {
    Case { name: "3 cells, a VM of two, 2 deaths", deaths: 2, ..spread_once() }
}

/// The same with a VM that has something of all cells.
pub fn spread_wide() -> Case {
    let vm = Vm { pages: 3, vcpus: 1, ..spread(0b111) };
    Case { name: "3 cells, a VM with pages of all, a death", vms: vec![vm], ..spread_once() }
}

/// A cell that hangs, perhaps not for ever, and has a VCPU of another one's VM.
pub fn hang() -> Case {
    let name = "3 cells, a VM of two, one hangs, perhaps not for ever";
    Case { name, deaths: 0, hangs: 1, vms: vec![spread(0b011)], ..spread_once() }
}

/// The same without that VM.
pub fn hang_alone() -> Case {
    let name = "3 cells, one hangs, perhaps not for ever";
    Case { name, vms: vec![local(1, 1)], ..hang() }
}

/// A false alarm, and a death.
pub fn alarm() -> Case {
    Case {
        name: "3 cells, a false alarm, a death",
        vms: vec![local(1, 1)],
        deaths: 1,
        alarms: 1,
        ..Case::default()
    }
}

/// A borrower dies, and its CPUs stop some time later.
pub fn borrower() -> Case {
    Case {
        name: "3 cells, a loan, a death, CPUs that stop late",
        vms: vec![local(0, 3)],
        commands: vec![(0, "lend 1 1")],
        deaths: 1,
        late_stops: true,
        ..Case::default()
    }
}

/// A lender dies and comes back, while a CPU of the other cell may run what used its pages.
pub fn comes_back() -> Case {
    Case {
        name: "2 cells, a VM of both, a death, a return",
        cells: 2,
        cpus: 2,
        vms: vec![Vm { pages: 4, ..spread(0b11) }, local(1, 1)],
        deaths: 1,
        reboots: 1,
        ..Case::default()
    }
}

/// Everything at once, for walks at random.
pub fn everything() -> Case {
    let vm = |cells, vcpus, pages, restart| Vm { cells, pages, vcpus, spread: true, restart };
    Case {
        name: "4 cells, everything",
        cells: 4,
        cpus: 2,
        pages: 8,
        vms: vec![
            vm(0b0111, 3, 4, Restart::Never),
            vm(0b0110, 2, 1, Restart::OnFailure),
            vm(0b1100, 2, 3, Restart::Never),
            local(0, 1),
            local(3, 2),
            Vm { restart: Restart::Always, ..local(1, 2) },
        ],
        commands: vec![
            (0, "lend 1 2"),
            (2, "lend 3 1"),
            (0, "recall 1"),
            (3, "return 2"),
            (0, "stress messages 4"),
            (1, "stress messages 4"),
            (2, "stress messages 4"),
            (3, "stress messages 4"),
            (0, "migrate 0.0 4"),
            (0, "migrate 0.1 0"),
            (1, "migrate 1.1 2"),
            (2, "migrate 2.0 7"),
            (2, "pause 2"),
            (2, "resume 2"),
            (0, "stop 3"),
            (0, "ping 2 3"),
        ],
        deaths: 3,
        hangs: 1,
        reboots: 2,
        lates: 3,
        alarms: 1,
        torn: true,
        late_stops: true,
    }
}
