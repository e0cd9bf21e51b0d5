//! How many pods, how long, and how much may wait.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, quantity::Bytes};

/// What the target counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Metric {
    /// Requests at once.
    #[default]
    Concurrency,
    /// Requests a second.
    Rps,
}

/// How many pods, and when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.min) ? self.min : 0) <= (has(self.max) ? self.max : 100)").message("spec.scaling.min must not be more than spec.scaling.max (100 where it is not set)"),
    validation = Rule::new("(has(self.initial) ? self.initial : 1) <= (has(self.max) ? self.max : 100)").message("spec.scaling.initial must not be more than spec.scaling.max (100 where it is not set)"),
    validation = Rule::new("!has(self.target) || !has(self.concurrencyLimit) || self.concurrencyLimit == 0 || (has(self.metric) && self.metric == 'rps') || self.target <= self.concurrencyLimit").message("spec.scaling.target must not be more than spec.scaling.concurrencyLimit"),
)]
pub struct ScalingSpec {
    /// Never fewer pods. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub min: Option<i32>,
    /// Never more pods. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max: Option<i32>,
    /// How many pods a new revision starts with, to prove that it runs. 0 starts nothing until the first call. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub initial: Option<i32>,
    /// What `target` counts. Default `concurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// Wanted per pod. Default: 70 % of `concurrencyLimit`, or 70 where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub target: Option<i32>,
    /// Most requests in one pod at once, cold or warm. 0 is no limit. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000))]
    pub concurrency_limit: Option<i32>,
    /// How long without any request until the last pod goes. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1s'))").message("spec.scaling.idleTimeout must be at least 1s"))]
    pub idle_timeout: Option<Duration>,
    /// The time over which demand is averaged to size a steady load. Default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('6s') && duration(self) <= duration('1h'))").message("spec.scaling.stableWindow must be between 6s and 1h"))]
    pub stable_window: Option<Duration>,
    /// The time over which demand is averaged to see a sudden rise. Default 6s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('10m'))").message("spec.scaling.panicWindow must be between 1s and 10m"))]
    pub panic_window: Option<Duration>,
    /// How long a lower count has to be wanted before pods go. Default 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) <= duration('1h'))").message("spec.scaling.scaleDownDelay must be at most 1h"))]
    pub scale_down_delay: Option<Duration>,
    /// Times in which more pods are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub schedules: Option<Vec<Schedule>>,
    /// Whether pods are started, or kept, when a call is likely soon, going by when it was called before. Default `Off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prewarm: Option<Prewarm>,
    /// Whether the count of pods is left alone, whatever it is: for somebody who scales by hand. A call still wakes a
    /// function that has none. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// Whether pods are started, or kept, when a call is likely soon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Prewarm {
    /// Nothing is learned.
    #[default]
    Off,
    /// Idle times are learned, and pods are there when the next call is likely and that pays.
    Auto,
}

/// A time in which at least `min` pods are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// When it begins: minute, hour, day of month, month, day of week.
    #[schemars(length(min = 9, max = 100))]
    #[x_kube(validation = Rule::new("self.matches('^([^ ]+ ){4}[^ ]+$')").message("spec.scaling.schedules[].cron must have five fields (minute hour day month weekday), such as `0 8 * * 1-5`"))]
    pub cron: String,
    /// IANA time zone. Default UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub time_zone: Option<String>,
    /// How long it lasts.
    pub duration: Duration,
    /// Never fewer pods in this time.
    #[schemars(range(min = 1, max = 10000))]
    pub min: i32,
}

impl ScalingSpec {
    /// Never fewer pods.
    #[must_use]
    pub fn min(&self) -> u32 {
        count(self.min, 0)
    }

    /// Never more pods.
    #[must_use]
    pub fn max(&self) -> u32 {
        count(self.max, 100)
    }

    /// How many pods a new revision starts with, at least `min`.
    #[must_use]
    pub fn initial(&self) -> u32 {
        count(self.initial, 1).max(self.min())
    }

    /// What the target counts.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric.unwrap_or_default()
    }

    /// Most requests in one pod at once; `None` is no limit.
    #[must_use]
    pub fn concurrency_limit(&self) -> Option<u32> {
        Some(count(self.concurrency_limit, 0)).filter(|n| *n > 0)
    }

    /// Wanted per pod.
    #[must_use]
    pub fn target(&self) -> f64 {
        match (self.target, self.concurrency_limit()) {
            (Some(target), _) => f64::from(target),
            (None, Some(limit)) => (f64::from(limit) * 0.7).max(1.0),
            (None, None) => 70.0,
        }
    }

    /// How long without any request until the last pod goes.
    #[must_use]
    pub fn idle_timeout(&self) -> std::time::Duration {
        self.idle_timeout.unwrap_or(Duration::from_secs(30)).get()
    }

    /// The time over which demand is averaged to size a steady load.
    #[must_use]
    pub fn stable_window(&self) -> std::time::Duration {
        self.stable_window.unwrap_or(Duration::from_secs(60)).get()
    }

    /// The time over which demand is averaged to see a sudden rise.
    #[must_use]
    pub fn panic_window(&self) -> std::time::Duration {
        self.panic_window.unwrap_or(Duration::from_secs(6)).get()
    }

    /// Whether idle times are learned.
    #[must_use]
    pub fn prewarm(&self) -> Prewarm {
        self.prewarm.unwrap_or_default()
    }

    /// Whether the count of pods is left alone.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused.unwrap_or(false)
    }

    /// How long a lower count has to be wanted before pods go.
    #[must_use]
    pub fn scale_down_delay(&self) -> std::time::Duration {
        self.scale_down_delay.unwrap_or(Duration::from_secs(0)).get()
    }
}

/// How long things may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimeoutsSpec {
    /// How long a request waits for a pod. Default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('1h'))").message("spec.timeouts.coldStart must be between 1s and 1h"))]
    pub cold_start: Option<Duration>,
    /// How long a pod may take to the first byte of its answer. Default 300s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('24h'))").message("spec.timeouts.response must be between 1s and 24h"))]
    pub response: Option<Duration>,
    /// How long neither side may send a byte. 0s is no limit. Default 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
}

impl TimeoutsSpec {
    /// How long a request waits for a pod.
    #[must_use]
    pub fn cold_start(&self) -> std::time::Duration {
        self.cold_start.unwrap_or(Duration::from_secs(60)).get()
    }

    /// How long a pod may take to the first byte of its answer.
    #[must_use]
    pub fn response(&self) -> std::time::Duration {
        self.response.unwrap_or(Duration::from_secs(300)).get()
    }

    /// How long neither side may send a byte; `None` is no limit.
    #[must_use]
    pub fn idle(&self) -> Option<std::time::Duration> {
        self.idle.map(Duration::get).filter(|d| !d.is_zero())
    }
}

/// What may wait for a pod, in each activator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// Most requests that wait. Default 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000))]
    pub max_requests: Option<i32>,
    /// Most bytes of requests that wait. Default 16Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Bytes>,
}

impl QueueSpec {
    /// Most requests that wait.
    #[must_use]
    pub fn max_requests(&self) -> u32 {
        count(self.max_requests, 1000)
    }

    /// Most bytes of requests that wait.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes.unwrap_or(Bytes::from_mebibytes(16)).get()
    }
}

/// The schema keeps counts from being negative; an object stored before a rule existed is read as 0.
fn count(value: Option<i32>, default: u32) -> u32 {
    value.map_or(default, |n| u32::try_from(n).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_follows_the_limit() {
        let target =
            |target, concurrency_limit| ScalingSpec { target, concurrency_limit, ..ScalingSpec::default() }.target();
        assert!((target(None, None) - 70.0).abs() < 1e-9);
        assert!((target(None, Some(10)) - 7.0).abs() < 1e-9);
        assert!((target(None, Some(1)) - 1.0).abs() < 1e-9);
        assert!((target(Some(5), Some(10)) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn initial_is_at_least_min() {
        assert_eq!(ScalingSpec { min: Some(3), ..ScalingSpec::default() }.initial(), 3);
        assert_eq!(ScalingSpec { initial: Some(0), ..ScalingSpec::default() }.initial(), 0);
        assert_eq!(ScalingSpec::default().initial(), 1);
    }
}
