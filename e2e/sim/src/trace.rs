//! Traces: where the functions and their requests come from.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{
    azure::Azure,
    generate::Generated,
    request::{Arrival, Function},
};

/// Source of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Generated,
    /// A directory with the files of the public trace.
    Azure(PathBuf),
}

impl std::str::FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "generated" => Ok(Self::Generated),
            Some(("azure", folder)) if !folder.is_empty() => Ok(Self::Azure(PathBuf::from(folder))),
            _ => bail!("`{text}` is not a trace; write `generated` or `azure:DIR`"),
        }
    }
}

/// Functions and their requests. The requests of a function are generated on demand, since all of them would take gigabytes.
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

    /// Returns the requests of a function ordered by time, within the hours of the trace.
    pub(crate) fn requests(&self, function: &Function) -> Vec<Arrival> {
        match self {
            Self::Generated(trace) => trace.requests(function),
            Self::Azure(trace) => trace.requests(function),
        }
    }

    /// Returns a note on the trace for the report.
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
    fn a_source_is_parsed_or_rejected() {
        assert_eq!("generated".parse::<Source>().unwrap(), Source::Generated);
        assert_eq!("azure:/data/a".parse::<Source>().unwrap(), Source::Azure("/data/a".into()));
        for wrong in ["", "azure", "azure:", "huawei:/x", "generated:1"] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong}");
        }
    }
}
