//! Runs experiments: configuration and script, the undisturbed run, the disturbed one, the judgement.

use super::draw::{Experiment, Fault, Kind, SHARING};
use super::judge::{self, Deed};
use super::record::Record;
use super::sides;
use super::store::Outcome;
use super::workload::{self, Activity, Injection};
use crate::run::facts::Facts;
use crate::test::process;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Host seconds that a run may take. It is virtual time that decides; this is for what hangs.
const LIMIT: u64 = 1800;

/// An undisturbed run, once it has been made: whoever makes it holds the lock.
pub type Slot = Arc<Mutex<Option<Arc<Baseline>>>>;

/// How long a command at the console takes, at most.
const CONSOLE_NS: u64 = 5_000_000;

/// A campaign's setting.
pub struct Campaign {
    /// Where results are kept.
    pub folder: PathBuf,
    /// The seed.
    pub seed: u64,
    /// A configuration that all experiments have, its path as it was typed, and its text.
    pub config: Option<(String, String)>,
    /// Which monitor this is.
    pub monitor: String,
    /// Undisturbed runs, each made once.
    pub undisturbed: Mutex<BTreeMap<String, Slot>>,
}

/// An undisturbed run.
pub struct Baseline {
    record: Record,
    /// When the console was ready, while VMs worked, and when the last one ended.
    window: (u64, u64),
}

/// An experiment, ready to be run.
struct Prepared {
    fault: Fault,
    moment: u64,
    activities: Vec<Activity>,
    facts: Facts,
    config: String,
    machine: String,
    memory: String,
    is_wide: bool,
}

/// A run's files and output.
struct Ended {
    record: Record,
    output: String,
}

impl Campaign {
    fn prepare(&self, id: u64) -> Result<Prepared> {
        if let Some((path, text)) = &self.config {
            let facts = Facts::parse(Path::new(path), text)?;
            let (fault, moment) = Experiment::fault_on(self.seed, id, &facts.layout);
            let config = workload::with_late_vms(text, facts.layout.cells());
            let facts = Facts::parse(Path::new(path), &config)?;
            return Ok(Prepared {
                fault,
                moment,
                activities: Vec::new(),
                machine: format!("{} cells, {} nodes", facts.layout.cells(), facts.layout.nodes),
                memory: path.clone(),
                is_wide: facts.vms.iter().any(|vm| vm.permitted.len() > 1),
                facts,
                config,
            });
        }
        let experiment = Experiment::draw(self.seed, id);
        let machine = &experiment.machine;
        let config = workload::config(machine, &experiment.guests);
        let config = workload::with_late_vms(&config, machine.cells as u8);
        let memory = format!("{:?}, {}-endian", machine.memory, machine.endian).to_lowercase();
        Ok(Prepared {
            facts: Facts::parse(Path::new("the drawn configuration"), &config)?,
            machine: machine.name(),
            memory,
            is_wide: experiment.guests.iter().any(|guest| guest.cells.len() > 1),
            config,
            fault: experiment.fault,
            moment: experiment.moment,
            activities: experiment.activities,
        })
    }

    /// The kind of an experiment.
    ///
    /// # Errors
    /// The campaign's configuration is wrong.
    pub fn kind(&self, id: u64) -> Result<Kind> {
        Ok(self.prepare(id)?.fault.kind)
    }

    /// The command that does an experiment again, and shows all of it.
    pub fn replay(&self, id: u64) -> String {
        let mut words = vec!["cargo".to_owned(), "xtask".into(), "fault".into()];
        if let Some((path, _)) = &self.config {
            words.extend(["--config".into(), crate::run::quote(path)]);
        }
        words.extend(["--seed".into(), self.seed.to_string()]);
        words.extend(["--replay".into(), id.to_string()]);
        words.join(" ")
    }

    /// Does an experiment; what came of it, and all that the disturbed run printed.
    ///
    /// # Errors
    /// Set-up: files can't be written, or a run can't be started.
    pub fn run(&self, id: u64) -> Result<(Outcome, String)> {
        let prepared = self.prepare(id)?;
        let Prepared { facts, fault, activities, .. } = &prepared;
        let failed = fault.failed(facts.layout.cpus_per_node);
        let lost = sides::lost(&facts.layout, failed);
        let mut outcome = Outcome {
            seed: self.seed,
            id,
            monitor: self.monitor.clone(),
            kind: fault.kind,
            fault: fault.words(),
            machine: prepared.machine.clone(),
            memory: prepared.memory.clone(),
            at_ns: 0,
            is_first: lost & 1 != 0,
            is_cut: (failed.links != 0 || failed.routers != 0) && lost != 0,
            is_wide: prepared.is_wide,
            in_flight: activities.iter().map(|activity| activity.name().into()).collect(),
            lost_cells: sides::each(lost).collect(),
            lost_vms: Vec::new(),
            either: Vec::new(),
            wrong: Vec::new(),
            replay: self.replay(id),
        };
        let baseline = match self.undisturbed(id, &prepared) {
            Ok(baseline) => baseline,
            Err(error) => {
                outcome.wrong.push(format!("undisturbed: {error:#}"));
                return Ok((outcome, String::new()));
            }
        };
        let (start, end) = baseline.window;
        let share = (u128::from(end - start) * u128::from(prepared.moment)) >> 64;
        outcome.at_ns = start + share as u64;
        let injection = Injection {
            words: fault.words(),
            at_ns: outcome.at_ns,
            lost,
            patience: 15 + 3 * (end / 1_000_000_000),
        };
        let script = workload::script(facts, activities, Some(&injection));
        let ended = self.boot(&format!("{}-{id}", self.seed), id, &prepared.config, &script)?;
        let deed = Deed {
            words: fault.words(),
            at_ns: outcome.at_ns,
            lost,
            moves: activities.contains(&Activity::Migrate),
        };
        let judgement = judge::judge(facts, &deed, &ended.record, &baseline.record);
        outcome.wrong = judgement.wrong;
        outcome.lost_vms = judgement.lost_vms;
        outcome.either = judgement.either;
        Ok((outcome, ended.output))
    }

    /// The undisturbed run of an experiment's machine.
    fn undisturbed(&self, id: u64, prepared: &Prepared) -> Result<Arc<Baseline>> {
        let script = workload::script(&prepared.facts, &prepared.activities, None);
        let mut hash = Sha256::new();
        for part in [&self.monitor, &prepared.config, &script, &seed(id).to_string()] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let key = short(&hash.finalize());
        let poisoned = "nobody panics while holding it";
        let slot = self.undisturbed.lock().expect(poisoned).entry(key.clone()).or_default().clone();
        // Whoever needs the same run waits for it.
        let mut slot = slot.lock().expect(poisoned);
        if let Some(baseline) = &*slot {
            return Ok(baseline.clone());
        }
        let ended = self.boot(&format!("undisturbed-{key}"), id, &prepared.config, &script)?;
        let baseline = Arc::new(Baseline::new(&prepared.facts, ended)?);
        *slot = Some(baseline.clone());
        Ok(baseline)
    }

    /// Runs a machine. Its files are `NAME.…` in the campaign's folder, the output too.
    fn boot(&self, name: &str, id: u64, config: &str, script: &str) -> Result<Ended> {
        let file = |suffix: &str| self.folder.join(format!("{name}.{suffix}"));
        let write = |path: &Path, text: &str| {
            fs::write(path, text).with_context(|| path.display().to_string())
        };
        let (config_file, script_file, events) = (file("toml"), file("script"), file("events"));
        write(&config_file, config)?;
        write(&script_file, script)?;
        let text = |path: &Path| path.display().to_string();
        let args = [
            "run".into(),
            "--icount".into(),
            "--config".into(),
            text(&config_file),
            "--script".into(),
            text(&script_file),
            "--events".into(),
            text(&events),
            "--seed".into(),
            seed(id).to_string(),
            "--timeout".into(),
            LIMIT.to_string(),
        ];
        let (command, _) = process::xtask(&args);
        let limit = Duration::from_secs(LIMIT + 60);
        let ended = process::run(command, &format!("fault-{name}"), limit)?;
        write(&file("out"), &ended.output)?;
        let events = fs::read_to_string(&events).unwrap_or_default();
        let status = ended.status.and_then(|status| status.code());
        Ok(Ended { record: Record::new(status, &ended.output, &events), output: ended.output })
    }

    /// Removes what an experiment that has passed has left.
    pub fn forget(&self, id: u64) {
        for suffix in ["toml", "script", "events", "out"] {
            // What is not there is gone already.
            let _ = fs::remove_file(self.folder.join(format!("{}-{id}.{suffix}", self.seed)));
        }
    }
}

/// The seed of an experiment's machine: that of its undisturbed run.
fn seed(id: u64) -> u64 {
    id / SHARING
}

/// The beginning of a hash.
pub fn short(hash: &[u8]) -> String {
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

impl Baseline {
    fn new(facts: &Facts, ended: Ended) -> Result<Self> {
        let record = ended.record;
        if record.status != Some(0) {
            let tail = process::tail(&ended.output, 12).join("\n    ");
            bail!(
                "it does not pass (status {:?}); the end of its output:\n    {tail}",
                record.status
            );
        }
        let mut ends = None;
        for vm in facts.vms.iter().filter(|vm| vm.autostart) {
            let Some(end) = record.end_of(&vm.name).filter(|end| end.cause != "quit") else {
                bail!("VM {} does not end by itself", vm.name)
            };
            ends = ends.max(Some(end.t_ns));
        }
        let Some(end) = ends else { bail!("no VM starts with the machine") };
        // The fault is asked for at the console, which is there when the last cell is up.
        let up = record.events.iter().filter(|event| event.kind == "monitor-up");
        let start = up.map(|event| event.t_ns).max().unwrap_or(0) + CONSOLE_NS;
        Ok(Self { record, window: (start.min(end), end) })
    }
}
