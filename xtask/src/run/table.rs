//! One TOML table, taken apart key by key: whatever is left over is an unknown key.

use super::size;
use super::source::{Item, Source};
use anyhow::{Result, anyhow};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The file's name and text, to turn byte offsets into lines.
#[derive(Clone)]
pub struct Text {
    file: Rc<Path>,
    newlines: Rc<[usize]>,
}

impl Text {
    /// Remembers where the lines of `text` end.
    pub fn new(file: &Path, text: &str) -> Self {
        Self { file: file.into(), newlines: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    /// The line that holds the start of `span`.
    pub fn at(&self, span: &Range<usize>) -> Source {
        let line = self.newlines.partition_point(|&end| end < span.start) + 1;
        Source::Line { file: self.file.clone(), line }
    }
}

/// A table whose keys are taken one by one.
pub struct Table<'a> {
    text: Text,
    name: &'static str,
    source: Source,
    keys: BTreeMap<String, (Source, &'a Spanned<DeValue<'a>>)>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// The table `name` (as messages call it) that begins at `span`.
    pub fn new(
        text: &Text,
        name: &'static str,
        span: &Range<usize>,
        table: &'a DeTable<'a>,
    ) -> Self {
        let keys = table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), (text.at(&key.span()), value)))
            .collect();
        Self { text: text.clone(), name, source: text.at(span), keys, known: Vec::new() }
    }

    /// Where the table begins.
    pub fn source(&self) -> &Source {
        &self.source
    }

    fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a DeValue<'a>) -> Result<T, String>,
    ) -> Result<Option<Item<T>>> {
        self.known.push(key);
        let Some((source, value)) = self.keys.remove(key) else { return Ok(None) };
        match read(value.get_ref()) {
            Ok(value) => Ok(Some(Item { value, source })),
            Err(what) => Err(anyhow!("{source}: {} {key}: {what}", self.name)),
        }
    }

    /// A string.
    pub fn string(&mut self, key: &'static str) -> Result<Option<Item<String>>> {
        self.take(key, |value| {
            value
                .as_str()
                .map(str::to_string)
                .ok_or_else(|| format!("is {}; write text in quotes", article(value.type_str())))
        })
    }

    /// One of a few words.
    pub fn word<T: Clone>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
    ) -> Result<Option<Item<T>>> {
        self.take(key, |value| {
            let found =
                value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
            found.map(|(_, meaning)| meaning.clone()).ok_or_else(|| {
                let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                format!("{} is not one of {}", show(value), all.join(", "))
            })
        })
    }

    /// A whole number from `range`.
    pub fn number(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<Item<u64>>> {
        self.take(key, |value| {
            integer(value).filter(|n| range.contains(n)).ok_or_else(|| {
                let (low, high) = (range.start(), range.end());
                format!("{} is not a whole number from {low} to {high}", show(value))
            })
        })
    }

    /// A size in bytes: a number, or text like `"64M"`.
    pub fn size(&mut self, key: &'static str) -> Result<Option<Item<u64>>> {
        self.take(key, |value| match value {
            DeValue::String(text) => size::parse(text),
            _ => integer(value).ok_or_else(|| {
                let what = show(value);
                format!("{what} is not a size; write a number of bytes or text like \"64M\"")
            }),
        })
    }

    /// A size as for [`Table::size`], or a word that means none; `None` also if the key is absent.
    pub fn size_or(&mut self, key: &'static str, word: &str) -> Result<Option<Item<u64>>> {
        let item = self.take(key, |value| match value {
            DeValue::String(text) if text == word => Ok(None),
            DeValue::String(text) => size::parse(text).map(Some),
            _ => integer(value).map(Some).ok_or_else(|| {
                let what = show(value);
                format!("{what} is not a size; write a number of bytes, text like \"64M\", or \"{word}\"")
            }),
        })?;
        Ok(item.and_then(|item| item.value.map(|value| Item { value, source: item.source })))
    }

    /// A list of whole numbers below `limit`.
    pub fn numbers(&mut self, key: &'static str, limit: u64) -> Result<Option<Item<Vec<u8>>>> {
        self.take(key, |value| {
            let wrong =
                || format!("{} is not a list of numbers below {limit}, like [0]", show(value));
            let array = value.as_array().ok_or_else(wrong)?;
            let number = |v: &Spanned<DeValue<'_>>| {
                integer(v.get_ref()).filter(|n| *n < limit).and_then(|n| u8::try_from(n).ok())
            };
            array.iter().map(number).collect::<Option<Vec<u8>>>().ok_or_else(wrong)
        })
    }

    /// A table inside this one; `None` when it is absent.
    pub fn table(&mut self, key: &'static str, name: &'static str) -> Result<Option<Table<'a>>> {
        self.known.push(key);
        let Some((source, value)) = self.keys.remove(key) else { return Ok(None) };
        let Some(table) = value.get_ref().as_table() else {
            return Err(anyhow!("{source}: {key}: is not a table; write it as {name}"));
        };
        Ok(Some(Table::new(&self.text, name, &value.span(), table)))
    }

    /// An array of tables inside this one; empty when it is absent.
    pub fn tables(&mut self, key: &'static str, name: &'static str) -> Result<Vec<Table<'a>>> {
        self.known.push(key);
        let Some((source, value)) = self.keys.remove(key) else { return Ok(Vec::new()) };
        let wrong = || anyhow!("{source}: {key}: is not a list of tables; write each as {name}");
        let array = value.get_ref().as_array().ok_or_else(wrong)?;
        array
            .iter()
            .map(|element| {
                let table = element.get_ref().as_table().ok_or_else(wrong)?;
                Ok(Table::new(&self.text, name, &element.span(), table))
            })
            .collect()
    }

    /// Refuses what nobody has taken.
    ///
    /// # Errors
    /// Names the first unknown key, with the nearest known one or all of them.
    pub fn finish(self) -> Result<()> {
        let Some((key, (source, _))) = self.keys.into_iter().next() else { return Ok(()) };
        let nearest = self
            .known
            .iter()
            .map(|known| (strsim::levenshtein(&key, known), known))
            .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
            .min();
        let remedy = match nearest {
            Some((_, known)) => format!("did you mean `{known}`?"),
            None => format!("known are {}", self.known.join(", ")),
        };
        Err(anyhow!("{source}: {}: unknown key `{key}`; {remedy}", self.name))
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(b) => b.to_string(),
        other => article(other.type_str()),
    }
}

fn article(kind: &str) -> String {
    format!("{} {kind}", if kind.starts_with(['a', 'i', 'o']) { "an" } else { "a" })
}
