//! The autoscaling policies and their names.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Result, bail};

use crate::{
    micros::{MICROS_PER_SECOND, Micros},
    request::Function,
    scaler::Scaler,
};

mod heads;
mod hpa;
mod keep_alive;
mod kpa;
mod rouse;

/// Default idle timeout in seconds.
const IDLE: u32 = 30;

/// A policy with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Rouse, with `scaling.idleTimeout` in seconds, and with or without pre-warming.
    Rouse { idle: u32, prewarm: bool },
    /// The earlier algorithm of Rouse, which counts queued requests as concurrency, with `scaling.idleTimeout` in seconds.
    Heads { idle: u32 },
    /// The Knative pod autoscaler with its defaults. `grace`: seconds for which a revision without load is kept beyond its
    /// window. With the defaults the activator is in the path of all but big revisions, and no grace is needed.
    Kpa { grace: u32 },
    /// The KEDA HTTP add-on with its defaults.
    Hpa,
    /// Fixed keep-alive: a pod for each request without a free slot, kept for `idle` seconds after its last request.
    KeepAlive { idle: u32 },
    /// Knows all requests in advance.
    Oracle,
}

/// The reference of relative waste.
pub(crate) const REFERENCE: Policy = Policy::KeepAlive { idle: 600 };

/// Scaling settings of a Function, besides its concurrency limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scaling {
    /// `scaling.idleTimeout`
    pub(crate) idle: Micros,
    /// `scaling.stableWindow`
    pub(crate) stable: Micros,
}

impl Scaling {
    /// Returns an idle timeout with the default window.
    fn idle(seconds: u32) -> Self {
        let second = MICROS_PER_SECOND as Micros;
        Self { idle: Micros::from(seconds) * second, stable: 60 * second }
    }
}

impl Policy {
    /// Returns the default policies.
    pub(crate) const DEFAULT: &'static str =
        "rouse,rouse:60s,rouse:75s,rouse:10m,prewarm,kpa,kpa:30s,keep:1m,keep:10m,keep:20m,oracle";

    /// Creates the scaler of a function; none for the oracle, which makes no decisions.
    pub(crate) fn scaler(self, function: &Function) -> Option<Box<dyn Scaler>> {
        let idle = match self {
            Self::Rouse { idle, .. } | Self::Heads { idle } => idle,
            _ => IDLE,
        };
        self.scaler_with(function, Scaling::idle(idle))
    }

    /// As [`Self::scaler`], but with the scaling of a Function instead of the policy's own setting, where that applies.
    pub(crate) fn scaler_with(self, function: &Function, scaling: Scaling) -> Option<Box<dyn Scaler>> {
        let micros = |seconds: u32| Micros::from(seconds) * MICROS_PER_SECOND as Micros;
        match self {
            Self::Rouse { prewarm, .. } => Some(Box::new(rouse::Rouse::new(function, scaling, prewarm))),
            Self::Heads { .. } => Some(Box::new(heads::Heads::new(function.limit, scaling))),
            Self::Kpa { grace } => Some(Box::new(kpa::Kpa::new(function, micros(grace), scaling.stable))),
            Self::Hpa => Some(Box::new(hpa::Hpa::new(function.limit))),
            Self::KeepAlive { idle } => Some(Box::new(keep_alive::KeepAlive::new(micros(idle)))),
            Self::Oracle => None,
        }
    }

    /// Returns whether the policy is Rouse, with any setting.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Rouse { .. })
    }
}

impl FromStr for Policy {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, setting) = text.split_once(':').map_or((text, None), |(name, setting)| (name, Some(setting)));
        Ok(match (name, setting.map(seconds).transpose()?) {
            ("rouse", idle) => Self::Rouse { idle: idle.unwrap_or(IDLE), prewarm: false },
            ("prewarm", idle) => Self::Rouse { idle: idle.unwrap_or(IDLE), prewarm: true },
            ("heads", idle) => Self::Heads { idle: idle.unwrap_or(IDLE) },
            ("kpa", grace) => Self::Kpa { grace: grace.unwrap_or(0) },
            ("hpa", None) => Self::Hpa,
            ("keep", Some(idle)) => Self::KeepAlive { idle },
            ("oracle", None) => Self::Oracle,
            _ => bail!(
                "`{text}` is not a policy; write rouse, rouse:60s, prewarm, prewarm:60s, heads, heads:60s, kpa, kpa:30s, \
                 hpa, keep:10m or oracle"
            ),
        })
    }
}

/// Parses a time such as `30s` or `10m`.
fn seconds(text: &str) -> Result<u32> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').with_context(|| format!("`{text}` is not a time; write 30s or 10m"))?, 1),
    };
    let number: u32 = number.parse().with_context(|| format!("`{text}` is not a time; write 30s or 10m"))?;
    number.checked_mul(unit).filter(|s| *s <= 86_400).with_context(|| format!("`{text}` is longer than a day"))
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |f: &mut fmt::Formatter<'_>, name: &str, seconds: u32| match seconds % 60 {
            0 if seconds > 60 => write!(f, "{name}:{}m", seconds / 60),
            0 if seconds == 60 && name == "keep" => write!(f, "keep:1m"),
            _ => write!(f, "{name}:{seconds}s"),
        };
        match *self {
            Self::Rouse { idle, prewarm } => match (if prewarm { "prewarm" } else { "rouse" }, idle) {
                (name, IDLE) => f.write_str(name),
                (name, idle) => time(f, name, idle),
            },
            Self::Heads { idle: IDLE } => f.write_str("heads"),
            Self::Heads { idle } => time(f, "heads", idle),
            Self::Kpa { grace: 0 } => f.write_str("kpa"),
            Self::Kpa { grace } => time(f, "kpa", grace),
            Self::Hpa => f.write_str("hpa"),
            Self::KeepAlive { idle } => time(f, "keep", idle),
            Self::Oracle => f.write_str("oracle"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in Policy::DEFAULT.split(',').chain(["heads", "heads:60s", "hpa"]) {
            assert_eq!(name.parse::<Policy>().unwrap().to_string(), name);
        }
        assert_eq!("prewarm:60s".parse::<Policy>().unwrap().to_string(), "prewarm:60s");
        assert_eq!("rouse:30s".parse::<Policy>().unwrap().to_string(), "rouse");
        for wrong in ["", "keep", "keep:", "keep:10", "keep:-1m", "oracle:1s", "kpa:2d", "keep:5000m"] {
            assert!(wrong.parse::<Policy>().is_err(), "{wrong}");
        }
    }
}
