//! A series: one boot of a machine, of which one node after the other is taken away at some instruction, and brought back.

use super::gdb::Gdb;
use super::outcome::{Death, Outcome};
use super::places::{Functions, REGIONS, Region};
use super::records::{Dependence, Fate, Reader};
use super::strike::Striker;
use super::watch::Machine;
use crate::fault::judge;
use crate::fault::sides::{self, Cells};
use crate::fuzz::rng::Rng;
use crate::run::facts::{Facts, VmFacts};
use abi::event::Cause;
use abi::topology::Failed;
use abi::{CellId, CpuId, VmId};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Host time after which something that must happen has not.
const LIMIT: Duration = Duration::from_secs(150);
/// How long a place is waited for before work is given to the machine once more, and how often that is done.
const REACHED: (Duration, u32) = (Duration::from_secs(4), 3);
/// How long one waits for a place in the course of a recovery, which either comes soon or not.
const RECOVERY: Duration = Duration::from_secs(3);
/// Most single steps from a block's start, or from a function's.
const STEPS: u64 = 200;
/// Most arrivals at a place before the one that is meant.
const ARRIVALS: u64 = 6;
/// The same in a recovery, in which a place may be come to once for each cell.
const AFTER_A_DEATH: u64 = 3;

/// Host time without anything new after which what the machine had done until it was stopped is known.
const DRAINED: Duration = Duration::from_millis(40);
/// How long a VM has lived until all cells have heard of it for sure, in nanoseconds of the machine's time.
const FRESH_NS: u64 = 100_000_000;

/// The first part of the names of VMs that are started after each death, one in each living cell.
pub const LATE: &str = "late-";

/// What guests are told to do: programs of the IRIX-like one (docs/irix.md).
const PROGRAMS: [&str; 9] =
    ["arithmetic", "family", "pipeline", "exec", "spaces", "memory", "signals", "faults", "share"];

/// Why a series does not go on.
pub enum Stop {
    /// What was to happen did not: the experiment has failed.
    Wrong(String),
    /// The tools are at fault.
    Tools(anyhow::Error),
}

impl From<String> for Stop {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Tools(error)
    }
}

/// What is to be expected of a VM.
#[derive(Clone, Copy, Debug)]
struct Outlook {
    /// The cell that it belongs to.
    home: CellId,
    fate: Fate,
}

/// Who does it.
pub struct Driver<'a> {
    /// The machine.
    pub machine: Machine,
    /// Stops it.
    pub gdb: Gdb,
    /// Reaches into it.
    pub striker: Striker,
    /// Reads what its cells record.
    pub reader: Reader,
    /// What it consists of.
    pub facts: &'a Facts,
    /// Its monitor's functions.
    pub functions: &'a Functions,
}

impl Driver<'_> {
    /// Waits until every cell is up and every VM works.
    ///
    /// # Errors
    /// It has not.
    pub fn settle(&mut self) -> Result<(), Stop> {
        let all = self.all();
        self.machine.until("all cells are up", LIMIT, |m| m.up == all)?;
        for vm in self.facts.vms.iter().filter(|vm| vm.autostart) {
            let what = format!("VM {} works", vm.name);
            self.machine.until(&what, LIMIT, |m| m.vms[&vm.name].text.contains("check"))?;
        }
        Ok(())
    }

    fn all(&self) -> Cells {
        ((1u16 << self.facts.layout.cells()) - 1) as Cells
    }

    /// A new VM does its work in each living cell.
    fn start_late(&mut self, living: Cells) -> Result<(), String> {
        let names: Vec<_> = sides::each(living).map(|cell| format!("{LATE}{cell}")).collect();
        let before: Vec<_> = names.iter().map(|name| self.machine.vms[name].finished).collect();
        for name in &names {
            self.machine.command(&format!("start {name}"));
        }
        for (name, before) in names.iter().zip(before) {
            let what = format!("VM {name} is started and does its work");
            self.machine.until(&what, LIMIT, |m| m.vms[name].finished > before)?;
        }
        Ok(())
    }

    /// One experiment: a node dies, in a recovery a second one; all is judged; the cells come back. `outcome` tells all that is known,
    /// whatever comes of it.
    ///
    /// # Errors
    /// It has failed, or could not be done.
    pub fn experiment(
        &mut self,
        rng: &mut Rng,
        region: Option<&Region>,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        self.machine.forget();
        self.work(rng);
        self.machine.pass(Duration::from_millis(rng.below(400)))?;
        let progress: Vec<_> =
            self.facts.vms.iter().map(|vm| self.machine.vms[&vm.name].progress).collect();
        let mut failed = Failed::default();
        let unharmed = |vm: &VmFacts| Outlook { home: CellId(vm.home), fate: Fate::Lives };
        let mut outlooks: Vec<_> = self.facts.vms.iter().map(unharmed).collect();
        match region {
            Some(region) if region.after_a_death => {
                self.strike(rng, None, &mut failed, &mut outlooks, outcome)?;
                self.strike(rng, Some(region), &mut failed, &mut outlooks, outcome)?;
            }
            region => self.strike(rng, region, &mut failed, &mut outlooks, outcome)?,
        }
        let lost = sides::lost(&self.facts.layout, sides::all(&self.facts.layout), failed);
        self.await_losses(lost)?;
        outcome.lost_cells = sides::each(lost).collect();
        for ((vm, progress), outlook) in self.facts.vms.iter().zip(progress).zip(outlooks) {
            self.judge_vm(vm, outlook, lost, progress, outcome)?;
        }
        let living = self.all() & !lost;
        self.start_late(living)?;
        self.account(living)?;
        self.judge_losses(lost)?;
        for cell in sides::each(lost) {
            self.repair(cell)?;
        }
        let again = |vm: &&VmFacts| vm.autostart && lost >> vm.home & 1 != 0;
        for vm in self.facts.vms.iter().filter(again) {
            let what = format!("VM {} runs again", vm.name);
            self.machine.until(&what, LIMIT, |m| m.vms[&vm.name].lives)?;
        }
        if let Some(wrong) = self.machine.wrong.first() {
            return Err(Stop::Wrong(wrong.clone()));
        }
        Ok(())
    }

    /// Gives the machine something to do between its cells.
    fn work(&mut self, rng: &mut Rng) {
        let cells = u64::from(self.facts.layout.cells());
        let by_hand = |vm: &VmFacts| !vm.autostart && !vm.name.starts_with(LATE);
        let wide = self.facts.vms.iter().filter(|vm| by_hand(vm));
        for vm in wide.filter(|vm| !self.machine.vms[&vm.name].lives).collect::<Vec<_>>() {
            self.machine.command(&format!("start {} on {}", vm.name, vm.home));
        }
        let mut lender = rng.below(cells);
        // Where nodes have nothing but windows, the home of the VMs that are started by hand has just room for one more VM
        // beside its own.
        if self.facts.layout.slice == 0
            && self.facts.vms.iter().any(|vm| by_hand(vm) && u64::from(vm.home) == lender)
        {
            lender = (lender + 1) % cells;
        }
        let borrower = (lender + 1 + rng.below(cells - 1)) % cells;
        self.machine.command(&format!("lend {borrower} {} on {lender}", 16 + rng.below(64)));
        self.machine.command("stress migrate 2");
        self.machine.command(&format!("stress messages {}", 300 + rng.below(1200)));
        if rng.chance(50) {
            self.machine.command(&format!("recall {borrower} on {lender}"));
        }
    }

    /// Stops a CPU of a living cell in a region, or anywhere, and takes its node's power away.
    fn strike(
        &mut self,
        rng: &mut Rng,
        region: Option<&Region>,
        failed: &mut Failed,
        outlooks: &mut [Outlook],
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        let steps = rng.below(STEPS + 1);
        let reached = match region {
            None => None,
            Some(region) => self.reach(rng, region, *failed)?,
        };
        let mut cpu = match reached {
            Some(cpu) => cpu,
            None => {
                self.halt()?;
                self.any_cpu(rng, *failed)
            }
        };
        if !self.may_die(cpu, *failed) {
            cpu = self.any_cpu(rng, *failed);
        }
        let mut done = 0;
        while done < steps && self.gdb.step(cpu)? {
            done += 1;
        }
        let pc = self.gdb.pc(cpu)?;
        let node = self.facts.layout.node_of(cpu);
        self.foresee(self.facts.layout.cell(node), *failed, outlooks, outcome)?;
        outcome.deaths.push(Death {
            node: node.0,
            cpu: cpu.0,
            pc: format!("{pc:#x}"),
            function: self.functions.name(pc),
            region: region.filter(|_| reached.is_some()).map(|region| region.name.into()),
            steps: done,
            after_ns: self.machine.now_ns,
        });
        self.machine.log.push_str(&format!(
            "> node {node} fails: CPU {cpu} at {pc:#x}, {}\n",
            self.functions.name(pc)
        ));
        self.striker.fail(node, rng.bits() | 1)?;
        failed.nodes |= 1 << node.0;
        self.gdb.go_on()?;
        Ok(())
    }

    /// Reads what the cells record, now that the machine stands still, and says what must become of each VM when `dead` dies. Whoever
    /// may be lost for what has failed before stays so.
    fn foresee(
        &mut self,
        dead: CellId,
        failed: Failed,
        outlooks: &mut [Outlook],
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        // What has happened until now is to be known.
        let mut known = usize::MAX;
        while std::mem::replace(&mut known, self.machine.log.len()) != self.machine.log.len() {
            self.machine.pass(DRAINED)?;
        }
        let layout = &self.facts.layout;
        let lives = |cell: &CellId| layout.node_set(*cell) & failed.nodes == 0;
        let living = (0..layout.cells()).map(CellId).filter(lives);
        let records = self.reader.read(living).map_err(|error| format!("{error:#}"))?;
        outcome.read += u32::from(records.is_some());
        for ((vm, outlook), id) in self.facts.vms.iter().zip(outlooks).zip(0..) {
            let seen = &self.machine.vms[&vm.name];
            let may = vm.permitted.contains(&dead.0);
            let recorded = records.as_ref().and_then(|all| all.home(VmId(id), outlook.home));
            let home = recorded.unwrap_or(outlook.home);
            outlook.home = home;
            let new = if home == dead {
                Fate::Lost
            } else if !may || !lives(&home) {
                Fate::Lives
            } else if !seen.lives {
                // It may be about to start.
                Fate::Either
            } else if let Some(records) = &records {
                let mut found = records.dependence(layout, VmId(id), home, dead)?;
                if self.machine.now_ns.saturating_sub(seen.since_ns) < FRESH_NS {
                    // What the registry says may be of its last life yet.
                    found.moving += std::mem::take(&mut found.vcpus);
                }
                if found != Dependence::default() {
                    outcome.depends.push(format!("{} in cell {dead}: {found}", vm.name));
                }
                found.fate(vm.is_spread)
            } else if vm.is_spread {
                Fate::Lost
            } else {
                Fate::Either
            };
            outlook.fate = new.max(outlook.fate);
        }
        Ok(())
    }

    /// A CPU of a living cell, of which not the last one is.
    fn any_cpu(&self, rng: &mut Rng, failed: Failed) -> CpuId {
        let cpus = self.facts.layout.cpus() as u8;
        let mortal: Vec<_> =
            (0..cpus).map(CpuId).filter(|cpu| self.may_die(*cpu, failed)).collect();
        rng.pick(&mortal)
    }

    /// Whether a CPU's cell lives, and others do as well.
    fn may_die(&self, cpu: CpuId, failed: Failed) -> bool {
        let layout = &self.facts.layout;
        let dead = |cell: CellId| layout.node_set(cell) & failed.nodes != 0;
        let own = layout.cell(layout.node_of(cpu));
        !dead(own) && (0..layout.cells()).map(CellId).any(|other| other != own && !dead(other))
    }

    /// Lets the machine run until a CPU of a living cell is about to execute a function of the region, some time: one function, or, if nobody
    /// comes there, any of them. None: it does not come to that.
    fn reach(
        &mut self,
        rng: &mut Rng,
        region: &Region,
        failed: Failed,
    ) -> Result<Option<CpuId>, Stop> {
        let entries = self.functions.entries(region);
        // A recovery happens once, and does not wait: to each second one any place will do.
        let any = region.after_a_death && rng.chance(50);
        let (drawn, others): (Vec<_>, Vec<_>) = {
            let (at, _) = rng.pick(&entries);
            entries.iter().map(|(entry, _)| *entry).partition(|entry| any || *entry == at)
        };
        let mut at = drawn;
        let mut left = 1 + rng.below(if region.after_a_death { AFTER_A_DEATH } else { ARRIVALS });
        self.halt()?;
        self.breakpoints(&at, true)?;
        let (patience, mut tries) = if region.after_a_death { (RECOVERY, 0) } else { REACHED };
        loop {
            self.gdb.go_on()?;
            match self.wait_for_stop(patience)? {
                Some(cpu) => {
                    left -= u64::from(self.may_die(cpu, failed));
                    if left == 0 {
                        self.breakpoints(&at, false)?;
                        return Ok(Some(cpu));
                    }
                    // The instruction that it stopped before, without stopping before it again.
                    self.gdb.step(cpu)?;
                }
                None if tries > 0 => {
                    tries -= 1;
                    self.work(rng);
                    self.halt()?;
                    if at.len() < entries.len() {
                        self.breakpoints(&others, true)?;
                        at.extend(&others);
                    }
                }
                None => {
                    self.halt()?;
                    self.breakpoints(&at, false)?;
                    self.gdb.go_on()?;
                    return Ok(None);
                }
            }
        }
    }

    /// Sets breakpoints, or takes them away.
    fn breakpoints(&mut self, at: &[u64], on: bool) -> Result<(), Stop> {
        for &at in at {
            self.gdb.breakpoint(at, on)?;
        }
        Ok(())
    }

    /// Stops the machine wherever it is.
    fn halt(&mut self) -> Result<(), Stop> {
        self.gdb.break_in()?;
        match self.wait_for_stop(LIMIT)? {
            Some(_) => Ok(()),
            None => Err(Stop::Wrong("the machine does not stop".into())),
        }
    }

    /// Watches until the machine stops.
    fn wait_for_stop(&mut self, limit: Duration) -> Result<Option<CpuId>, Stop> {
        let end = Instant::now() + limit;
        loop {
            if let Some(cpu) = self.gdb.stopped(Duration::from_millis(2))? {
                return Ok(Some(cpu));
            }
            self.machine.pass(Duration::ZERO)?;
            if Instant::now() >= end {
                return Ok(None);
            }
        }
    }

    /// Each of these cells is reported lost by another. (By one that lives, or one that died later: what it has told, its
    /// successor does not tell again.)
    fn await_losses(&mut self, lost: Cells) -> Result<(), String> {
        for cell in sides::each(lost) {
            let what = format!("cell {cell} is reported lost");
            self.machine.until(&what, LIMIT, |m| {
                m.losses.iter().any(|(by, l)| *l == cell && *by != i32::from(cell))
            })?;
        }
        Ok(())
    }

    /// Exactly these cells were lost, and each was reported by one that lives; a cell that died after it had reported another may have done so as well.
    fn judge_losses(&self, lost: Cells) -> Result<(), String> {
        for (by, cell) in &self.machine.losses {
            if lost >> cell & 1 == 0 {
                return Err(format!(
                    "cell {cell} was lost, says cell {by}, and should not have been"
                ));
            }
        }
        for cell in sides::each(lost) {
            let living = self.machine.losses.iter().filter(|(by, l)| {
                *l == cell && u8::try_from(*by).is_ok_and(|by| lost >> by & 1 == 0)
            });
            let count = living.count();
            if count > 1 {
                return Err(format!("cell {cell} was reported as lost {count} times"));
            }
        }
        Ok(())
    }

    fn judge_vm(
        &mut self,
        vm: &VmFacts,
        Outlook { home, fate }: Outlook,
        lost: Cells,
        progress: u64,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let name = &vm.name;
        if lost >> home.0 & 1 != 0 {
            // Whether anybody still says so or not.
            let seen = self.machine.vms.entry(name.clone()).or_default();
            seen.lives = false;
            seen.text.clear();
            outcome.lost_vms.push(name.clone());
            return Ok(());
        }
        if fate == Fate::Lost {
            // It may have finished its work just before.
            let what = format!("VM {name}, which depends on a lost cell, ends");
            self.machine.until(&what, LIMIT, |m| !m.vms[name].lives)?;
            outcome.lost_vms.push(name.clone());
            return Ok(());
        }
        self.machine.until(&format!("VM {name} goes on"), LIMIT, |m| {
            let vm = &m.vms[name];
            !vm.lives || vm.progress > progress + 20
        })?;
        let seen = &self.machine.vms[name];
        if seen.ends.contains(&Cause::CellLost) {
            if fate == Fate::Lives {
                return Err(format!("VM {name} was lost, and should not have been"));
            }
            outcome.lost_vms.push(name.clone());
        }
        if fate == Fate::Either {
            outcome.either.push(name.clone());
        }
        if !seen.is_right() {
            return Err(format!("VM {name} prints what it should not: {:?}", seen.text));
        }
        Ok(())
    }

    /// Each living cell's pages add up.
    fn account(&mut self, living: Cells) -> Result<(), String> {
        self.machine.command("mem");
        let wrong = |m: &Machine| judge::accounts(m.said.lines(), living);
        match self.machine.until("each living cell's pages add up", LIMIT, |m| wrong(m).is_empty())
        {
            Ok(()) => Ok(()),
            Err(late) => Err(format!("{late}: {}", wrong(&self.machine).join("; "))),
        }
    }

    fn repair(&mut self, cell: u8) -> Result<(), String> {
        let end = Instant::now() + LIMIT;
        while self.machine.up >> cell & 1 == 0 {
            if Instant::now() > end {
                return Err(format!("cell {cell} does not come back: {:?}", self.machine.said));
            }
            self.machine.command(&format!("repair {cell}"));
            let answered =
                |m: &Machine| m.said.contains("boots again") || m.said.contains("repair: ");
            self.machine.until("`repair` is answered", LIMIT, answered)?;
            if self.machine.said.contains("boots again") {
                self.machine
                    .until(&format!("cell {cell} is back"), LIMIT, |m| m.up >> cell & 1 != 0)?;
            } else {
                self.machine.pass(Duration::from_millis(50))?;
            }
        }
        Ok(())
    }
}

/// A machine and its VMs.
pub struct Drawn {
    /// As a configuration.
    pub config: String,
    /// What each VM prints in a whole life.
    pub texts: BTreeMap<String, String>,
}

/// Draws a machine. `sums`: the line of each program's checksum.
///
/// # Errors
/// A program has none.
pub fn draw(rng: &mut Rng, sums: &BTreeMap<String, String>) -> Result<Drawn> {
    let cells = rng.pick(&[2u64, 4, 4, 4, 8]);
    let each = if cells <= 4 && rng.chance(50) { 2 } else { 1 };
    let nodes = cells * each;
    let cpus = if nodes <= 4 && rng.chance(60) { 2 } else { 1 };
    let memory = if nodes <= 4 && rng.chance(50) {
        "memory_kind = \"removable\""
    } else {
        "memory_kind = \"mixed\"\nslice_per_node = \"48M\""
    };
    let endian = if rng.chance(50) { "big" } else { "little" };
    let mut drawn = Drawn {
        config: format!(
            "[machine]\nnodes = {nodes}\ncpus_per_node = {cpus}\nendian = \"{endian}\"\n{memory}\n"
        ),
        texts: BTreeMap::new(),
    };
    for cell in 0..cells {
        let own: Vec<_> = (cell * each..(cell + 1) * each).map(|node| node.to_string()).collect();
        drawn.config.push_str(&format!("[[cell]]\nnodes = [{}]\n", own.join(", ")));
    }
    for cell in 0..cells {
        // With more VCPUs than CPUs the programs wait for each other's locks, for seconds.
        let vcpus = 1 + rng.below((each * cpus).min(2));
        let rest = format!("vcpus = {vcpus}\ncells = [{cell}]\nrestart = \"always\"");
        let mut does = PROGRAMS.repeat(3);
        does.rotate_left(rng.below(PROGRAMS.len() as u64) as usize);
        drawn.add(&format!("own-{cell}"), &rest, &does, sums)?;
    }
    let home = rng.below(cells);
    let other = (home + 1 + rng.below(cells - 1)) % cells;
    let vcpus = 2 + rng.below((2 * each * cpus - 1).min(3));
    let rest = format!(
        "vcpus = {vcpus}\ncells = [{home}, {other}]\nplacement = \"spread\"\nstart = \"manual\""
    );
    drawn.add("wide", &rest, &PROGRAMS, sums)?;
    let rest = format!("cells = [{home}, {other}]\nstart = \"manual\"");
    drawn.add("roam", &rest, &PROGRAMS, sums)?;
    for cell in 0..cells {
        let rest = format!("cells = [{cell}]\nstart = \"manual\"");
        drawn.add(&format!("{LATE}{cell}"), &rest, &["signals"], sums)?;
    }
    Ok(drawn)
}

impl Drawn {
    fn add(
        &mut self,
        name: &str,
        rest: &str,
        does: &[&str],
        sums: &BTreeMap<String, String>,
    ) -> Result<()> {
        self.config.push_str(&format!(
            "[[vm]]\nname = \"{name}\"\nkernel = \"irix\"\nmemory = \"8M\"\n{rest}\ncmdline = \"do={}\"\n",
            does.join(",")
        ));
        let mut text = "irix: shell ready\n".to_owned();
        for program in does {
            let sum = sums.get(*program);
            text.push_str(sum.with_context(|| format!("no checksum of {program} is known"))?);
            text.push('\n');
        }
        self.texts.insert(name.into(), text);
        Ok(())
    }
}

/// The region of experiment `id`, of a machine with so many cells: every second one's.
pub fn region(id: u64, cells: u8) -> Option<&'static Region> {
    if id.is_multiple_of(2) {
        return None;
    }
    // After a death there must be somebody left to recover, and to die.
    let aims: Vec<_> = REGIONS.iter().filter(|region| cells > 2 || !region.after_a_death).collect();
    aims.get((id / 2) as usize % aims.len()).copied()
}
