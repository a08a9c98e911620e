//! What a run leaves in files: one log a stream under `--log`, the events, and what consoles print with its times.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The open files.
#[derive(Debug, Default)]
pub struct Logs {
    streams: BTreeMap<String, Log>,
    events: Option<Log>,
    records: Option<Log>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Log {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path)
            .with_context(|| format!("{}: can't be written; check the folder", path.display()))?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| self.failed())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().with_context(|| self.failed())
    }

    fn failed(&self) -> String {
        format!("{}: can't be written; is the disk full?", self.path.display())
    }
}

impl Logs {
    /// Opens `NAME.log` in `folder` for each of `names`, and the events' file; old ones are replaced.
    ///
    /// # Errors
    /// When a file can't be made.
    pub fn open<'a>(
        folder: Option<&Path>,
        names: impl IntoIterator<Item = &'a str>,
        events: Option<&Path>,
    ) -> Result<Self> {
        let mut logs = Self::default();
        if let Some(folder) = folder {
            fs::create_dir_all(folder)
                .with_context(|| format!("--log: can't make the folder {}", folder.display()))?;
            for name in names {
                let log = Log::create(folder.join(format!("{name}.log")))?;
                logs.streams.insert(name.to_string(), log);
            }
        }
        logs.events = events.map(|path| Log::create(path.to_path_buf())).transpose()?;
        Ok(logs)
    }

    /// Opens the file of what consoles print, if it is wanted; an old one is replaced.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn keep_records(&mut self, path: Option<&Path>) -> Result<()> {
        self.records = path.map(|path| Log::create(path.to_path_buf())).transpose()?;
        Ok(())
    }

    /// Appends what a console has printed at machine time `t_ns`, in nanoseconds.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn record(&mut self, t_ns: u64, console: &str, bytes: &[u8]) -> Result<()> {
        let Some(records) = &mut self.records else { return Ok(()) };
        let text = String::from_utf8_lossy(bytes);
        let line = serde_json::json!({ "t_ns": t_ns, "console": console, "text": text });
        records.write(format!("{line}\n").as_bytes())
    }

    /// Appends to the log of a stream.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn stream(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.streams.get_mut(name).map_or(Ok(()), |log| log.write(bytes))
    }

    /// Appends a line to the events.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn event(&mut self, line: &str) -> Result<()> {
        let Some(events) = &mut self.events else { return Ok(()) };
        events.write(line.as_bytes())?;
        events.write(b"\n")
    }

    /// Hands everything to the system, so that others can read it.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn flush(&mut self) -> Result<()> {
        let own = self.events.iter_mut().chain(&mut self.records);
        self.streams.values_mut().chain(own).try_for_each(Log::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_events_go_to_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, events) = (folder.path().join("x/logs"), folder.path().join("events"));
        let mut log = Logs::open(Some(&logs), ["a", "monitor"], Some(&events)).unwrap();
        log.stream("a", b"\xff\r\n").unwrap();
        log.stream("unknown", b"is dropped").unwrap();
        log.event("{}").unwrap();
        let records = folder.path().join("records");
        log.keep_records(Some(&records)).unwrap();
        log.record(7, "a", b"\xff\"\r\n").unwrap();
        log.flush().unwrap();
        let line = "{\"console\":\"a\",\"t_ns\":7,\"text\":\"\u{fffd}\\\"\\r\\n\"}\n";
        assert_eq!(fs::read_to_string(&records).unwrap(), line);
        assert_eq!(fs::read(logs.join("a.log")).unwrap(), b"\xff\r\n");
        assert_eq!(fs::read(logs.join("monitor.log")).unwrap(), b"");
        assert_eq!(fs::read(events).unwrap(), b"{}\n");
    }

    #[test]
    fn a_full_disk_is_named() {
        let mut log = Logs::open(None, [], Some(Path::new("/dev/full"))).unwrap();
        log.event("{}").unwrap();
        let error = format!("{:#}", log.flush().unwrap_err());
        assert!(error.starts_with("/dev/full: can't be written; is the disk full?"), "{error}");
    }
}
