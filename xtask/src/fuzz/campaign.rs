//! Many cases on both CPUs, in batches, by several workers.

use super::case::Case;
use super::harness::Place;
use super::model::{Drop, Model};
use super::qemu::{End, Machine};
use super::state::Profile;
use super::{layout, report, stream, vm};
use crate::build::Built;
use crate::endian::Endian;
use crate::setup::qemu::Qemu;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Differences of a batch that are reported in full.
const REPORTS: usize = 300;

/// What executes the streams, to be compared with bare QEMU.
#[derive(Clone, Debug)]
pub enum Executor {
    /// The interpreter, in this process.
    Interpreter,
    /// A VM on the monitor.
    Vm {
        /// PROM and monitor.
        built: Built,
        /// The VM's engine.
        engine: vm::Engine,
    },
}

/// What names streams, and what executes them.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Byte order of both machines.
    pub endian: Endian,
    /// Which streams.
    pub profile: Profile,
    /// The seed.
    pub seed: u64,
    /// What executes them.
    pub executor: Executor,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which streams, and on what.
    pub setting: Setting,
    /// The cases' numbers.
    pub cases: Range<u64>,
    /// Workers at once.
    pub jobs: usize,
    /// Stop after so many differences.
    pub max_differences: usize,
    /// Print progress.
    pub progress: bool,
}

/// A case on which the CPUs differ.
#[derive(Debug)]
pub struct Difference {
    /// Its number.
    pub case: u64,
    /// What happened, for a person.
    pub report: String,
}

/// What was run.
#[derive(Debug, Default)]
pub struct Totals {
    /// Cases whose results were compared.
    pub compared: u64,
    /// Cases that were not, by reason.
    pub dropped: BTreeMap<Drop, u64>,
    /// Instructions executed, the harness's own included.
    pub instructions: u64,
    /// Exceptions taken by streams.
    pub exceptions: u64,
    /// What the VMs that came to their ends say of themselves, summed.
    pub counters: BTreeMap<String, u64>,
    /// What differed.
    pub differences: Vec<Difference>,
    /// How long it took.
    pub time: Duration,
}

/// One worker's pair of machines.
pub struct Pair {
    setting: Setting,
    qemu: Machine,
    /// Executes the streams, or only tells which are fit for a comparison.
    model: Model,
    vm: Option<vm::Machine>,
    /// Removed when the pair goes away.
    _dir: TempDir,
}

/// How one case ended.
pub enum Outcome {
    /// Both the same.
    Same,
    /// Not fit for a comparison.
    Dropped(Drop),
    /// Different: our slot, QEMU's.
    Different(Vec<u8>, Vec<u8>),
    /// QEMU did not come to the end: how it ended.
    Stuck(&'static str),
}

impl Pair {
    /// Machines that keep their files below `folder`.
    pub fn new(setting: Setting, qemu: Qemu, folder: &Path) -> Result<Self> {
        let dir = tempfile::tempdir_in(folder)
            .with_context(|| format!("can't make a folder in {}", folder.display()))?;
        let endian = setting.endian;
        let vm = match &setting.executor {
            Executor::Interpreter => None,
            Executor::Vm { built, engine } => {
                let qemu = qemu.clone();
                let command = move || qemu.command();
                let supervisor = setting.profile == Profile::Supervisor;
                let mut built = built.clone();
                // A build while this runs must not give QEMU another PROM.
                let boot_elf = dir.path().join("boot");
                std::fs::copy(&built.boot_elf, &boot_elf).context("can't copy the PROM")?;
                built.boot_elf = boot_elf;
                Some(vm::Machine::new(endian, &built, supervisor, *engine, command)?)
            }
        };
        let place = match setting.profile {
            Profile::Everything => Place::Rom,
            Profile::User | Profile::Supervisor | Profile::Translator => Place::Ram,
        };
        let qemu = Machine::new(endian, place, dir.path(), move || qemu.command())?;
        Ok(Self { setting, qemu, model: Model::new(endian, place), vm, _dir: dir })
    }

    /// The case of a number.
    pub fn case(&self, number: u64) -> Case {
        stream::case(self.setting.profile, self.setting.seed, number)
    }

    /// One case on both.
    pub fn one(&mut self, case: &Case) -> Result<Outcome> {
        let input = case.bytes(self.setting.endian);
        let mut ours = input.clone();
        if let Err(drop) = self.model.run(case.slot, &mut ours) {
            return Ok(Outcome::Dropped(drop));
        }
        if let Some(vm) = &mut self.vm {
            ours.clone_from(&input);
            match vm.run(case.slot, &mut ours)? {
                End::Complete => {}
                End::Hang(_) => return Ok(Outcome::Stuck("the VM does not come to its end")),
                End::Died(_) => return Ok(Outcome::Stuck("the machine dies of it")),
            }
        }
        let mut theirs = input;
        Ok(match self.qemu.run(case.slot, &mut theirs)? {
            End::Complete if ours == theirs => Outcome::Same,
            End::Complete => Outcome::Different(ours, theirs),
            End::Hang(_) => Outcome::Stuck("QEMU does not come to its end"),
            End::Died(_) => Outcome::Stuck("QEMU dies of it"),
        })
    }

    /// The cases of one batch; what is found goes to `totals`.
    fn batch(&mut self, cases: Range<u64>, totals: &Mutex<Totals>) -> Result<()> {
        let first = (cases.start % layout::BATCH as u64) as usize;
        let mut ours = Vec::with_capacity((cases.end - cases.start) as usize * layout::SLOT_SIZE);
        let mut theirs = Vec::with_capacity(ours.capacity());
        let mut sums = Totals::default();
        for number in cases.clone() {
            let case = self.case(number);
            let input = case.bytes(self.setting.endian);
            let mut output = input.clone();
            match self.model.run(case.slot, &mut output) {
                Ok(instructions) => {
                    sums.compared += 1;
                    sums.instructions += instructions;
                    sums.exceptions += self.model.traps(&output);
                    ours.extend(if self.vm.is_some() { &input } else { &output });
                    theirs.extend(input);
                }
                Err(drop) => {
                    *sums.dropped.entry(drop).or_default() += 1;
                    let empty = Case::empty(self.setting.endian);
                    ours.extend(&empty);
                    theirs.extend(empty);
                }
            }
        }
        let mut stuck = all(first, &mut theirs, |at, rest| {
            Ok((self.qemu.run(at, rest)?, "QEMU hung or died in this case\n".into()))
        })?;
        if let Some(vm) = &mut self.vm {
            stuck.extend(all(first, &mut ours, |at, rest| {
                let end = vm.run(at, rest)?;
                for (name, value) in &vm.counters {
                    *sums.counters.entry(name.clone()).or_default() += value;
                }
                Ok((end, format!("the VM hung or died in this case\n{}\n", vm.last_words)))
            })?);
        }
        for (i, number) in cases.enumerate() {
            let range = i * layout::SLOT_SIZE..(i + 1) * layout::SLOT_SIZE;
            let (a, b) = (&ours[range.clone()], &theirs[range]);
            if a == b && !stuck.contains_key(&i) {
                continue;
            }
            let case = self.case(number);
            let mut report = stuck.remove(&i).unwrap_or_default();
            if sums.differences.len() < REPORTS {
                report.push_str(&report::show(self.setting.endian, &case, a, b));
            }
            eprintln!("  case {number} differs");
            sums.differences.push(Difference { case: number, report });
        }
        let mut totals = totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        totals.compared += sums.compared;
        totals.instructions += sums.instructions;
        totals.exceptions += sums.exceptions;
        totals.differences.extend(sums.differences);
        for (name, value) in sums.counters {
            *totals.counters.entry(name).or_default() += value;
        }
        for (drop, n) in sums.dropped {
            *totals.dropped.entry(drop).or_default() += n;
        }
        Ok(())
    }
}

/// Runs all slots of a batch from `first` on. A case that the machine does not survive ends its run, and the
/// next run starts behind it: these cases, by their place in the batch, and what is to be said of them.
fn all(
    first: usize,
    slots: &mut [u8],
    mut run: impl FnMut(usize, &mut [u8]) -> Result<(End, String)>,
) -> Result<BTreeMap<usize, String>> {
    let mut stuck = BTreeMap::new();
    let mut at = first;
    while (at - first) * layout::SLOT_SIZE < slots.len() {
        let rest = &mut slots[(at - first) * layout::SLOT_SIZE..];
        match run(at, rest)? {
            (End::Complete, _) => break,
            (End::Hang(slot) | End::Died(slot), why) => {
                stuck.insert(slot - first, why);
                at = slot + 1;
            }
        }
    }
    Ok(stuck)
}

/// Runs a plan to its end or to its limit of differences.
pub fn run(plan: &Plan, qemu: &Qemu, folder: &Path) -> Result<Totals> {
    let start = Instant::now();
    let totals = Mutex::new(Totals::default());
    let batch = layout::BATCH as u64;
    let next = AtomicU64::new(plan.cases.start);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            let mut pair = Pair::new(plan.setting.clone(), qemu.clone(), folder)?;
            loop {
                // Batches lie between multiples of the batch size, so that slots are consecutive.
                let from = next
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                        (n < plan.cases.end).then(|| (n / batch + 1) * batch)
                    })
                    .unwrap_or(plan.cases.end);
                if from >= plan.cases.end || stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let end = ((from / batch + 1) * batch).min(plan.cases.end);
                pair.batch(from..end, &totals)?;
                let totals = totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if totals.differences.len() >= plan.max_differences {
                    stop.store(true, Ordering::Relaxed);
                }
                if plan.progress {
                    eprintln!(
                        "  up to case {end}: {} compared, {} differ, {:.0} s",
                        totals.compared,
                        totals.differences.len(),
                        start.elapsed().as_secs_f64()
                    );
                }
            }
        };
        let workers: Vec<_> = (0..plan.jobs).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(())
    })?;
    let mut totals = totals.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    totals.differences.sort_by_key(|d| d.case);
    totals.time = start.elapsed();
    Ok(totals)
}

/// A folder with room for the files of `jobs` machines.
pub fn folder(jobs: usize) -> Result<PathBuf> {
    crate::run::folder_with_room(jobs as u64 * (layout::RAM_SIZE as u64 + layout::ROM_SIZE as u64))
}

/// The smallest variant of `case` that still differs: units are emptied as long as it does.
pub fn minimise(pair: &mut Pair, case: &Case) -> Result<Case> {
    let mut best = case.clone();
    let mut progress = true;
    while progress {
        progress = false;
        // From the end: what comes later seldom matters to what comes before.
        for i in (0..best.units.len()).rev() {
            if best.units[i].words.iter().all(|&(word, _)| word == 0) {
                continue;
            }
            let mut candidate = best.clone();
            candidate.units[i].clear();
            if matches!(pair.one(&candidate)?, Outcome::Different(..) | Outcome::Stuck(_)) {
                best = candidate;
                progress = true;
            }
        }
    }
    Ok(best)
}
