//! Which stage of memory pressure a process is in. Pure: time and usage are arguments.

use std::time::Duration;

use tokio::time::Instant;

/// Stage of memory pressure. A stage includes what the ones before it do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No pressure.
    #[default]
    Normal,
    /// Connections do not stay idle for longer than a few seconds.
    Trim,
    /// The longest idle connections are closed.
    Shrink,
    /// New connections, and requests that would be queued, are rejected.
    Reject,
}

/// A stage, and since when it may be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The stage.
    pub stage: Stage,
    /// When the usage was last high enough for the stage.
    pub needed: Instant,
}

/// A stage is left only when the usage has been this many percent of the limit below its entry for [`HOLD`].
const HYSTERESIS_PERCENT: u64 = 3;
/// Freed memory returns to the system with a delay, and requests arrive in bursts.
const HOLD: Duration = Duration::from_secs(2);

impl Stage {
    /// All stages, from the lowest to the highest.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Trim, Self::Shrink, Self::Reject];

    /// Returns the usage from which on a stage is entered, in percent of the limit.
    #[must_use]
    pub fn entry_percent(self) -> u64 {
        match self {
            Self::Normal => 0,
            Self::Trim => 75,
            Self::Shrink => 82,
            Self::Reject => 88,
        }
    }

    /// Returns the name for logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Trim => "trim",
            Self::Shrink => "shrink",
            Self::Reject => "reject",
        }
    }

    fn below(self) -> Self {
        match self {
            Self::Normal | Self::Trim => Self::Normal,
            Self::Shrink => Self::Trim,
            Self::Reject => Self::Shrink,
        }
    }
}

/// Returns the stage at this usage. A higher stage is entered at once, also past others. Stages are left one by one.
#[must_use]
pub fn decide(now: Instant, used: u64, limit: u64, before: Decision) -> Decision {
    let percent = used.saturating_mul(100) / limit.max(1);
    let reached = Stage::ALL.into_iter().rev().find(|stage| percent >= stage.entry_percent()).unwrap_or_default();
    let stays = percent + HYSTERESIS_PERCENT >= before.stage.entry_percent();
    if reached >= before.stage {
        Decision { stage: reached, needed: now }
    } else if stays {
        Decision { needed: now, ..before }
    } else if now.saturating_duration_since(before.needed) >= HOLD {
        Decision { stage: before.stage.below().max(reached), needed: now }
    } else {
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies usages, each at a time in seconds, and returns the stages.
    fn stages(usages: &[(f64, u64)]) -> Vec<&'static str> {
        let start = Instant::now();
        let mut decision = Decision { stage: Stage::Normal, needed: start };
        let mut apply = |&(at, used): &(f64, u64)| {
            decision = decide(start + Duration::from_secs_f64(at), used, 100, decision);
            decision.stage.name()
        };
        usages.iter().map(&mut apply).collect()
    }

    #[test]
    fn a_higher_stage_is_entered_at_once() {
        let seen = stages(&[(0.0, 74), (0.1, 75), (0.2, 82), (0.3, 88), (0.4, 300)]);
        assert_eq!(seen, ["normal", "trim", "shrink", "reject", "reject"]);
        assert_eq!(stages(&[(0.0, 10), (0.1, 95)]), ["normal", "reject"], "past the stages between");
    }

    #[test]
    fn stages_are_left_one_by_one_and_late() {
        let seen = stages(&[(0.0, 90), (1.0, 10), (1.9, 10), (2.1, 10), (3.0, 10), (4.2, 10), (6.3, 10)]);
        assert_eq!(seen, ["reject", "reject", "reject", "shrink", "shrink", "trim", "normal"]);
    }

    #[test]
    fn usage_around_a_threshold_does_not_alternate() {
        let seen =
            stages(&[(0.0, 88), (3.0, 87), (6.0, 85), (9.0, 88), (12.0, 86), (15.0, 84), (16.0, 84), (17.1, 84)]);
        assert_eq!(seen, ["reject", "reject", "reject", "reject", "reject", "shrink", "shrink", "shrink"]);
    }

    #[test]
    fn a_brief_dip_does_not_end_a_stage() {
        let seen = stages(&[(0.0, 90), (1.5, 20), (1.6, 90), (3.0, 20), (3.7, 20)]);
        assert_eq!(seen, ["reject", "reject", "reject", "reject", "shrink"]);
    }

    #[test]
    fn a_limit_of_zero_is_full() {
        let start = Instant::now();
        let before = Decision { stage: Stage::Normal, needed: start };
        assert_eq!(decide(start, 1, 0, before).stage, Stage::Reject);
    }
}
