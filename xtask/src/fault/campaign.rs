//! Runs series of experiments: configuration and script, the run, the judgement.

use super::draw::{Experiment, Kind, SERIES, Series, both};
use super::judge::{self, Judgement};
use super::record::Record;
use super::script::Script;
use super::sides;
use super::store::Outcome;
use super::workload;
use crate::build::Seeded;
use crate::run::facts::Facts;
use crate::test::process;
use anyhow::{Context, Result};
use irix_user::work::Rounds;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Host seconds that a run may take. It is virtual time that decides; this is for what hangs.
const LIMIT: u64 = 3600;
/// So many rounds of a guest are known: more than any does in a run.
const ROUNDS: usize = 20_000;

/// A campaign's setting.
pub struct Campaign {
    /// Where results are kept.
    pub folder: PathBuf,
    /// The seed.
    pub seed: u64,
    /// Only experiments of this kind.
    pub kind: Option<Kind>,
    /// Whether all series have a stock guest in each cell.
    pub stock: bool,
    /// A configuration that all series have, its path as it was typed, and its text.
    pub config: Option<(String, String)>,
    /// Which monitor this is.
    pub monitor: String,
    /// The mistake that was seeded into it.
    pub mutant: Option<Seeded>,
    /// The checksums of guests' rounds, computed once.
    pub sums: OnceLock<Vec<u64>>,
}

/// A series, ready to be run.
struct Prepared {
    experiments: Vec<Experiment>,
    facts: Facts,
    config: String,
    machine: String,
    memory: String,
}

impl Campaign {
    /// Whether experiment `id` belongs to the campaign.
    pub fn has(&self, id: u64) -> bool {
        self.kind.is_none_or(|only| only == Kind::of(self.seed, id))
    }

    /// The rest of a series, from experiment `first` on.
    fn prepare(&self, first: u64) -> Result<Prepared> {
        let number = first / SERIES;
        let (machine, memory, config) = if let Some((path, text)) = &self.config {
            let facts = Facts::parse(Path::new(path), text)?;
            let (cells, nodes) = (facts.layout.cells(), facts.layout.nodes);
            let config = workload::with_late_vms(text, cells);
            (format!("{cells} cells, {nodes} nodes"), path.clone(), config)
        } else {
            let series = Series::draw(self.seed, number, self.stock);
            let machine = &series.machine;
            let stock = match series.stock.len() {
                0 => "",
                1 => ", a stock guest",
                _ => ", stock guests",
            };
            let memory = format!("{:?}, {}-endian", machine.memory, machine.endian).to_lowercase();
            let memory = memory + stock;
            let config = workload::config(machine, &series.guests, &series.stock);
            let config = workload::with_late_vms(&config, machine.cells as u8);
            (machine.name(), memory, config)
        };
        let facts = Facts::parse(Path::new("the drawn configuration"), &config)?;
        let masks = facts.masks();
        let experiments = (first..(number + 1) * SERIES)
            .filter(|id| self.has(*id))
            .map(|id| Experiment::draw(self.seed, id, &facts.layout, &masks))
            .collect();
        Ok(Prepared { experiments, facts, config, machine, memory })
    }

    /// The command that does the campaign's experiments, without saying which.
    fn command(&self) -> String {
        let mut words = vec!["cargo".to_owned(), "xtask".into(), "fault".into()];
        if let Some((path, _)) = &self.config {
            words.extend(["--config".into(), crate::run::quote(path)]);
        }
        if self.stock {
            words.push("--stock".into());
        }
        if let Some(kind) = self.kind {
            words.extend(["--kind".into(), kind.to_string()]);
        }
        if let Some(mutant) = self.mutant {
            words.extend(["--mutant".into(), mutant.to_string()]);
        }
        words.extend(["--seed".into(), self.seed.to_string()]);
        words.join(" ")
    }

    /// The command that does an experiment of a run again that began with `first`, and shows all of it.
    fn replay(&self, first: u64, id: u64) -> String {
        let from = self.first_of(id / SERIES);
        let from = if from == Some(first) { String::new() } else { format!(" --first {first}") };
        format!("{}{from} --replay {id}", self.command())
    }

    /// The first experiment of a series.
    pub fn first_of(&self, series: u64) -> Option<u64> {
        (series * SERIES..(series + 1) * SERIES).find(|id| self.has(*id))
    }

    /// Whether a result is one of this campaign, of this monitor.
    pub fn is_ours(&self, outcome: &Outcome) -> bool {
        let command = format!("{} --", self.command());
        outcome.monitor == self.monitor && outcome.replay.starts_with(&command)
    }

    /// Runs a series from experiment `first` on; what came of the experiments, as far as the run came, and all that it printed.
    ///
    /// # Errors
    /// Set-up: files can't be written, or a run can't be started.
    pub fn run(&self, first: u64) -> Result<(Vec<Outcome>, String)> {
        let prepared = self.prepare(first)?;
        let Prepared { facts, experiments, config, .. } = &prepared;
        let script = Script::new(facts, experiments);
        let (record, output) = self.boot(first, config, &script.text)?;
        let failed = record.failed_line().map(|line| script.experiment_of(line));
        let sums = self.sums.get_or_init(|| Rounds::default().take(ROUNDS).collect());
        let judgements = judge::judge(facts, experiments, failed, &record, sums);
        let outcomes = experiments.iter().zip(judgements);
        let outcomes = outcomes.map(|(one, judged)| self.outcome(&prepared, first, one, judged));
        Ok((outcomes.collect(), output))
    }

    fn outcome(
        &self,
        prepared: &Prepared,
        first: u64,
        experiment: &Experiment,
        judgement: Judgement,
    ) -> Outcome {
        let Experiment { id, fault, second, lost, activities, .. } = experiment;
        let layout = &prepared.facts.layout;
        let failed = match second {
            Some(second) => both(fault, &second.fault, layout),
            None => fault.failed(layout),
        };
        Outcome {
            seed: self.seed,
            id: *id,
            monitor: self.monitor.clone(),
            mutant: self.mutant.map(|mutant| mutant.to_string()),
            kind: fault.kind,
            fault: fault.words(),
            second: second.as_ref().map(|second| second.fault.words()),
            machine: prepared.machine.clone(),
            memory: prepared.memory.clone(),
            at_ns: judgement.at_ns,
            found_ns: judgement.found_ns,
            lines: judgement.lines,
            is_first: lost & 1 != 0,
            is_cut: (failed.links != 0 || failed.routers != 0) && *lost != 0,
            is_wide: prepared.facts.masks().iter().any(|cells| cells.count_ones() > 1),
            in_flight: activities.iter().map(|activity| activity.name().into()).collect(),
            lost_cells: sides::each(*lost).collect(),
            lost_vms: judgement.lost_vms,
            either: judgement.either,
            wrong: judgement.wrong,
            replay: self.replay(first, *id),
        }
    }

    /// Runs a machine. Its files are `SEED-FIRST.…` in the campaign's folder, the output too.
    fn boot(&self, first: u64, config: &str, script: &str) -> Result<(Record, String)> {
        let name = format!("{}-{first}", self.seed);
        let file = |suffix: &str| self.folder.join(format!("{name}.{suffix}"));
        let write = |path: &Path, text: &str| {
            fs::write(path, text).with_context(|| path.display().to_string())
        };
        let (config_file, script_file) = (file("toml"), file("script"));
        let (events, records) = (file("events"), file("records"));
        write(&config_file, config)?;
        write(&script_file, script)?;
        let text = |path: &Path| path.display().to_string();
        let mut args = vec![
            "run".into(),
            "--icount".into(),
            "--config".into(),
            text(&config_file),
            "--script".into(),
            text(&script_file),
            "--events".into(),
            text(&events),
            "--records".into(),
            text(&records),
            "--seed".into(),
            (first / SERIES).to_string(),
            "--timeout".into(),
            LIMIT.to_string(),
        ];
        if let Some(mutant) = self.mutant {
            args.extend(["--mutant".into(), mutant.to_string()]);
        }
        let (mut command, _) = process::xtask(&args);
        // The campaign has built everything; cargo would look anew each time, one run after the other.
        command.env(crate::build::IS_BUILT, "1");
        let limit = Duration::from_secs(LIMIT + 60);
        let ended = process::run(command, &format!("fault-{name}"), limit)?;
        write(&file("out"), &ended.output)?;
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let status = ended.status.and_then(|status| status.code());
        let record = Record::new(status, &ended.output, &read(&events), &read(&records));
        Ok((record, ended.output))
    }

    /// Removes what a run whose experiments have passed has left.
    pub fn forget(&self, first: u64) {
        for suffix in ["toml", "script", "events", "records", "out"] {
            // What is not there is gone already.
            let _ = fs::remove_file(self.folder.join(format!("{}-{first}.{suffix}", self.seed)));
        }
    }
}

/// The beginning of a hash.
pub fn short(hash: &[u8]) -> String {
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
