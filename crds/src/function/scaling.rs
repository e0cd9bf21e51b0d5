//! Autoscaling, timeouts and queue limits.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, quantity::Bytes};

/// Metric of `target`: `concurrency` (requests in flight) or `rps` (requests per second). Default `concurrency`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Metric {
    /// Requests in flight.
    #[default]
    Concurrency,
    /// Requests per second.
    Rps,
}

/// Autoscaling bounds, target and windows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.min) ? self.min : 0) <= (has(self.max) ? self.max : 100)").message("spec.scaling.min must not be more than spec.scaling.max (default 100); lower min or raise max"),
    validation = Rule::new("(has(self.initial) ? self.initial : 1) <= (has(self.max) ? self.max : 100)").message("spec.scaling.initial must not be more than spec.scaling.max (default 100); lower initial or raise max"),
    validation = Rule::new("!has(self.target) || !has(self.concurrencyLimit) || self.concurrencyLimit == 0 || (has(self.metric) && self.metric == 'rps') || self.target <= self.concurrencyLimit").message("spec.scaling.target must not be more than spec.scaling.concurrencyLimit; lower target or raise concurrencyLimit"),
    validation = Rule::new("!has(self.targetUtilization) || (!has(self.target) && has(self.concurrencyLimit) && self.concurrencyLimit > 0 && (!has(self.metric) || self.metric == 'concurrency'))").message("spec.scaling.targetUtilization is a percentage of spec.scaling.concurrencyLimit: set concurrencyLimit, and neither target nor metric rps"),
)]
pub struct ScalingSpec {
    /// Minimum number of pods for each revision with traffic. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub min: Option<i32>,
    /// Maximum number of pods for each revision. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max: Option<i32>,
    /// Number of pods that a new revision starts with, to verify that it becomes ready. 0 starts no pod before the first request.
    /// Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub initial: Option<i32>,
    /// Metric of `target`: `concurrency` (requests in flight) or `rps` (requests per second). Default `concurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// Target value of `metric` for each pod. Default for `concurrency`: 70 % of `concurrencyLimit`, at least 1, or 70 without a
    /// limit. Default for `rps`: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub target: Option<i32>,
    /// Target as a percentage of `concurrencyLimit`, instead of `target`. It may be less than one request: with `concurrencyLimit: 1`
    /// and 70, three pods of ten are free for the next requests. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub target_utilization: Option<i32>,
    /// Maximum number of requests in flight in one pod, enforced by each activator. 0 means no limit. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000))]
    pub concurrency_limit: Option<i32>,
    /// Time without requests after which the last pod is deleted. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1s'))").message("spec.scaling.idleTimeout must be at least 1s"))]
    pub idle_timeout: Option<Duration>,
    /// Stable window: time over which demand is averaged in normal operation. Default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('6s') && duration(self) <= duration('1h'))").message("spec.scaling.stableWindow must be between 6s and 1h"))]
    pub stable_window: Option<Duration>,
    /// Panic window: time over which demand is averaged to detect a burst. Default 6s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('10m'))").message("spec.scaling.panicWindow must be between 1s and 10m"))]
    pub panic_window: Option<Duration>,
    /// Time for which the autoscaler must want fewer pods before it scales down. Default 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) <= duration('1h'))").message("spec.scaling.scaleDownDelay must be at most 1h"))]
    pub scale_down_delay: Option<Duration>,
    /// Time that a pod that is being removed has for its requests, streams and WebSockets included, before it is deleted with those
    /// that are left. Default: `spec.timeouts.response`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('24h'))").message("spec.scaling.drainTimeout must be between 1s and 24h"))]
    pub drain_timeout: Option<Duration>,
    /// Schedules that raise the minimum number of pods. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub schedules: Option<Vec<Schedule>>,
    /// Predictive scaling from an idle-time histogram: `Auto` starts or keeps pods when a request is likely soon. Default `Off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prewarm: Option<Prewarm>,
    /// Pauses autoscaling, for manual scaling. A request still scales a Function from zero. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// Predictive scaling from an idle-time histogram: `Auto` starts or keeps pods when a request is likely soon. Default `Off`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Prewarm {
    /// No idle times are recorded.
    #[default]
    Off,
    /// Idle times are recorded. Pods start or stay when the next request is likely and the prediction pays off.
    Auto,
}

/// A recurring time window with at least `min` pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Start of the window as a cron expression with five fields: minute, hour, day of month, month, day of week. Required.
    #[schemars(length(min = 9, max = 100))]
    #[x_kube(validation = Rule::new("self.matches('^([^ ]+ ){4}[^ ]+$')").message("spec.scaling.schedules[].cron must have five fields (minute hour day month weekday), such as `0 8 * * 1-5`"))]
    pub cron: String,
    /// IANA time zone of `cron`, such as `Europe/Berlin`. Default UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub time_zone: Option<String>,
    /// Length of the window, such as `8h`. Required.
    pub duration: Duration,
    /// Minimum number of pods during the window. Required.
    #[schemars(range(min = 1, max = 10000))]
    pub min: i32,
}

impl ScalingSpec {
    /// Minimum number of pods.
    #[must_use]
    pub fn min(&self) -> u32 {
        count(self.min, 0)
    }

    /// Maximum number of pods.
    #[must_use]
    pub fn max(&self) -> u32 {
        count(self.max, 100)
    }

    /// Number of pods that a new revision starts with, at least `min`.
    #[must_use]
    pub fn initial(&self) -> u32 {
        count(self.initial, 1).max(self.min())
    }

    /// Metric of `target`: `concurrency` (requests in flight) or `rps` (requests per second). Default `concurrency`.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric.unwrap_or_default()
    }

    /// Maximum number of requests in flight in one pod; `None` means no limit.
    #[must_use]
    pub fn concurrency_limit(&self) -> Option<u32> {
        Some(count(self.concurrency_limit, 0)).filter(|n| *n > 0)
    }

    /// Target value of the metric for each pod.
    #[must_use]
    pub fn target(&self) -> f64 {
        let utilization = self.target_utilization.map(|percent| f64::from(percent.clamp(1, 100)) / 100.0);
        match (self.target, self.metric(), self.concurrency_limit()) {
            (Some(target), ..) => f64::from(target),
            // As in Knative: a request is assumed to take a small part of a second.
            (None, Metric::Rps, _) => 200.0,
            (None, Metric::Concurrency, Some(limit)) => match utilization {
                Some(utilization) => f64::from(limit) * utilization,
                None => (f64::from(limit) * 0.7).max(1.0),
            },
            (None, Metric::Concurrency, None) => 70.0,
        }
    }

    /// Time that a pod that is being removed has for its requests; `None` means as long as a response may take.
    #[must_use]
    pub fn drain_timeout(&self) -> Option<std::time::Duration> {
        self.drain_timeout.map(Duration::get)
    }

    /// Time without requests after which the last pod is deleted.
    #[must_use]
    pub fn idle_timeout(&self) -> std::time::Duration {
        self.idle_timeout.unwrap_or(Duration::from_secs(30)).get()
    }

    /// Stable window.
    #[must_use]
    pub fn stable_window(&self) -> std::time::Duration {
        self.stable_window.unwrap_or(Duration::from_secs(60)).get()
    }

    /// Panic window.
    #[must_use]
    pub fn panic_window(&self) -> std::time::Duration {
        self.panic_window.unwrap_or(Duration::from_secs(6)).get()
    }

    /// Predictive scaling.
    #[must_use]
    pub fn prewarm(&self) -> Prewarm {
        self.prewarm.unwrap_or_default()
    }

    /// Whether autoscaling is paused.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused.unwrap_or(false)
    }

    /// Time for which the autoscaler must want fewer pods before it scales down.
    #[must_use]
    pub fn scale_down_delay(&self) -> std::time::Duration {
        self.scale_down_delay.unwrap_or(Duration::from_secs(0)).get()
    }
}

/// Timeouts of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimeoutsSpec {
    /// Time that a request may wait in the queue for a pod. A pod that is not ready within it counts as failed. Default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('1h'))").message("spec.timeouts.coldStart must be between 1s and 1h"))]
    pub cold_start: Option<Duration>,
    /// Time from sending a request to a pod until the response headers. Default 300s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('24h'))").message("spec.timeouts.response must be between 1s and 24h"))]
    pub response: Option<Duration>,
    /// Idle timeout of a request: time without a byte in either direction. 0s means no limit. Default 300s, or `response` if
    /// that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
}

impl TimeoutsSpec {
    /// Default of the idle timeout, which is that of Envoy for streams.
    const IDLE: std::time::Duration = std::time::Duration::from_secs(300);

    /// Time that a request may wait for a pod.
    #[must_use]
    pub fn cold_start(&self) -> std::time::Duration {
        self.cold_start.unwrap_or(Duration::from_secs(60)).get()
    }

    /// Time from sending a request to a pod until the response headers.
    #[must_use]
    pub fn response(&self) -> std::time::Duration {
        self.response.unwrap_or(Duration::from_secs(300)).get()
    }

    /// Time without a byte in either direction; `None` means no limit.
    #[must_use]
    pub fn idle(&self) -> Option<std::time::Duration> {
        // A longer wait for the response headers must not be cut by a default.
        let default = || self.response().max(Self::IDLE);
        Some(self.idle.map_or_else(default, Duration::get)).filter(|d| !d.is_zero())
    }
}

/// Limits on requests that are queued for a pod, for each activator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// Maximum number of queued requests. Further requests receive status 429. Default 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000))]
    pub max_requests: Option<i32>,
    /// Maximum size of all queued requests, in bytes. Default 16Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Bytes>,
}

impl QueueSpec {
    /// Maximum number of queued requests.
    #[must_use]
    pub fn max_requests(&self) -> u32 {
        count(self.max_requests, 1000)
    }

    /// Maximum size of all queued requests, in bytes.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes.unwrap_or(Bytes::from_mebibytes(16)).get()
    }
}

/// Reads a count that the schema keeps from being negative. An older object with a negative count is read as 0.
fn count(value: Option<i32>, default: u32) -> u32 {
    value.map_or(default, |n| u32::try_from(n).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_defaults_to_a_fraction_of_the_concurrency_limit() {
        let target =
            |target, concurrency_limit| ScalingSpec { target, concurrency_limit, ..ScalingSpec::default() }.target();
        assert!((target(None, None) - 70.0).abs() < 1e-9);
        assert!((target(None, Some(10)) - 7.0).abs() < 1e-9);
        assert!((target(None, Some(1)) - 1.0).abs() < 1e-9);
        assert!((target(Some(5), Some(10)) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn a_rate_has_a_target_of_its_own() {
        let rps = ScalingSpec { metric: Some(Metric::Rps), concurrency_limit: Some(10), ..ScalingSpec::default() };
        assert!((rps.target() - 200.0).abs() < 1e-9, "not 70 % of the concurrency limit");
        assert!((ScalingSpec { target: Some(7), ..rps }.target() - 7.0).abs() < 1e-9);
    }

    #[test]
    fn utilization_may_leave_less_than_one_request_per_pod() {
        let one = ScalingSpec { target_utilization: Some(70), concurrency_limit: Some(1), ..ScalingSpec::default() };
        assert!((one.target() - 0.7).abs() < 1e-9);
        let full = ScalingSpec { target_utilization: Some(100), concurrency_limit: Some(8), ..ScalingSpec::default() };
        assert!((full.target() - 8.0).abs() < 1e-9);
    }

    #[test]
    fn a_request_may_be_idle_for_as_long_as_its_response_may_take() {
        let idle = |idle: Option<&str>, response: Option<&str>| {
            let [idle, response] = [idle, response].map(|text| text.map(|text| text.parse().unwrap()));
            TimeoutsSpec { idle, response, cold_start: None }.idle().map(|idle| idle.as_secs())
        };
        assert_eq!(idle(None, None), Some(300));
        assert_eq!(idle(None, Some("1s")), Some(300));
        assert_eq!(idle(None, Some("1h")), Some(3600));
        assert_eq!(idle(Some("1m"), Some("1h")), Some(60));
        assert_eq!(idle(Some("0s"), None), None);
    }

    #[test]
    fn initial_is_at_least_min() {
        assert_eq!(ScalingSpec { min: Some(3), ..ScalingSpec::default() }.initial(), 3);
        assert_eq!(ScalingSpec { initial: Some(0), ..ScalingSpec::default() }.initial(), 0);
        assert_eq!(ScalingSpec::default().initial(), 1);
    }
}
