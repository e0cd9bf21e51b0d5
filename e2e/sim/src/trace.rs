//! Who is called, and when.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{Micros, azure::Azure, generate::Generated};

/// One call of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) at: Micros,
    /// How long a pod works on it, in microseconds.
    pub(crate) service: u32,
}

/// A function as far as a policy could see it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Function {
    /// Its number in the trace.
    pub(crate) index: usize,
    /// How its calls come.
    pub(crate) kind: &'static str,
    /// Calls that a pod works on at once.
    pub(crate) limit: u32,
    /// Half of its pods start faster than this, in seconds.
    pub(crate) start: f64,
    /// About how many calls it will get, to put the long work first.
    pub(crate) expected: f64,
}

/// Where calls come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Generated,
    /// A folder with the files of the public trace.
    Azure(PathBuf),
}

impl std::str::FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "generated" => Ok(Self::Generated),
            Some(("azure", folder)) if !folder.is_empty() => Ok(Self::Azure(PathBuf::from(folder))),
            _ => bail!("`{text}` is no trace; write `generated` or `azure:DIR`"),
        }
    }
}

/// Functions and their calls. The calls of a function are made when they are asked for, since those of all at once would
/// be gigabytes.
#[derive(Debug)]
pub(crate) enum Trace {
    Generated(Generated),
    Azure(Azure),
}

impl Trace {
    pub(crate) fn open(source: &Source, functions: usize, hours: u32, seed: u64) -> Result<Self> {
        Ok(match source {
            Source::Generated => Self::Generated(Generated::new(functions, hours, seed)),
            Source::Azure(folder) => Self::Azure(Azure::read(folder, functions, hours, seed)?),
        })
    }

    pub(crate) fn functions(&self) -> Vec<Function> {
        match self {
            Self::Generated(trace) => trace.functions(),
            Self::Azure(trace) => trace.functions(),
        }
    }

    /// In the order of time, each within the hours of the trace.
    pub(crate) fn calls(&self, function: &Function) -> Vec<Call> {
        match self {
            Self::Generated(trace) => trace.calls(function),
            Self::Azure(trace) => trace.calls(function),
        }
    }

    /// What a reader of the figures should know of the trace.
    pub(crate) fn note(&self) -> Option<String> {
        match self {
            Self::Generated(_) => None,
            Self::Azure(trace) => trace.note(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_or_refused() {
        assert_eq!("generated".parse::<Source>().unwrap(), Source::Generated);
        assert_eq!("azure:/data/a".parse::<Source>().unwrap(), Source::Azure("/data/a".into()));
        for wrong in ["", "azure", "azure:", "huawei:/x", "generated:1"] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong}");
        }
    }
}
