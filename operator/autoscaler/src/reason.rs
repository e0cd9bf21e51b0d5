//! The result of a decision: the count, its reason and the numbers behind it.

use std::{fmt, time::Duration};

/// The decided count, its reason, and when to decide again. Formats as one sentence for an Event or a debug page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Decided number of pods.
    pub replicas: u32,
    /// What determined the count.
    pub reason: Reason,
    /// Decide again at this time even if nothing has changed. `None`: time alone changes nothing.
    pub wake_at: Option<Duration>,
    /// The inputs of the decision.
    pub seen: Seen,
}

/// Inputs of a decision. Averages are in the unit of the target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Concurrent requests, queued or in a pod, at the time of the decision.
    pub concurrency: u64,
    /// Queued requests.
    pub queued: u64,
    /// Service time, the time that a request spends in a pod, if known.
    pub service: Option<Duration>,
    /// Pod start time, if known.
    pub start: Option<Duration>,
    /// Average over the stable window, or over its part since the last rise.
    pub stable: f64,
    /// Average over the panic window.
    pub panic: f64,
    /// Average over the last second.
    pub swift: f64,
    /// Target per pod.
    pub target: f64,
    /// Time since the last request.
    pub idle: Duration,
}

/// What determined a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No request for the idle timeout.
    Idle,
    /// No load, but the idle timeout has not expired.
    KeptWarm,
    /// No load, but a pod is starting that no request could use yet.
    Starting,
    /// The average over the stable window.
    Load,
    /// Requests are queued and no pod is ready yet.
    Waiting,
    /// A backlog that the pods for the load would not drain in time.
    Backlog,
    /// Requested pods are late, so more would not help: insufficient capacity, a slow image pull, an overloaded node.
    WaitingForCapacity,
    /// More pods did not increase throughput, so the limit is elsewhere.
    Bottleneck,
    /// A present or recent sudden rise.
    Panic,
    /// Too little history since the start to scale below the present count.
    Learning,
    /// The revision is not verified ready yet.
    Initial,
    /// A rollout is about to send requests to the revision.
    Rollout,
    /// A higher count was wanted within the scale-down delay.
    Delayed,
    /// A request is likely soon, by the idle-time histogram.
    Prewarmed,
    /// An active schedule.
    Scheduled,
    /// `scaling.min`.
    Min,
    /// `scaling.max`.
    Max,
    /// `scaling.paused`.
    Paused,
}

impl Reason {
    /// Returns the value of the metric label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::KeptWarm => "kept_warm",
            Self::Starting => "starting",
            Self::Load => "load",
            Self::Waiting => "waiting",
            Self::Backlog => "backlog",
            Self::WaitingForCapacity => "waiting_for_capacity",
            Self::Bottleneck => "bottleneck",
            Self::Panic => "panic",
            Self::Learning => "learning",
            Self::Initial => "initial",
            Self::Rollout => "rollout",
            Self::Delayed => "delayed",
            Self::Prewarmed => "prewarmed",
            Self::Scheduled => "scheduled",
            Self::Min => "min",
            Self::Max => "max",
            Self::Paused => "paused",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle for the whole idleTimeout",
            Self::KeptWarm => "idleTimeout is not over",
            Self::Starting => "a pod is starting, and idleTimeout runs only after it could serve",
            Self::Load => "load over the stable window",
            Self::Waiting => "requests wait for a first pod",
            Self::Backlog => "a backlog of queued requests",
            Self::WaitingForCapacity => "requested pods are late, so no more are requested",
            Self::Bottleneck => "more pods have not served more requests, so no more are requested",
            Self::Panic => "sudden rise",
            Self::Learning => "kept until a whole window has been seen",
            Self::Initial => "the revision is not verified ready yet",
            Self::Rollout => "a rollout is about to send requests to the revision",
            Self::Delayed => "more was wanted within scaleDownDelay",
            Self::Prewarmed => "a request is likely soon",
            Self::Scheduled => "a schedule is on",
            Self::Min => "scaling.min",
            Self::Max => "scaling.max",
            Self::Paused => "scaling.paused",
        })
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replicas, reason, wake_at: _, seen } = self;
        let Seen { concurrency, queued, service, start, stable, panic, swift, target, idle } = seen;
        let known = |time: &Option<Duration>| {
            time.map_or_else(|| "unknown".to_owned(), |t| format!("{:.2} s", t.as_secs_f64()))
        };
        write!(
            f,
            "{replicas} wanted: {reason} ({concurrency} at once, {queued} of them queued; work {stable:.2} stable, {panic:.2} \
             panic, {swift:.2} in the last second, of {target} per pod; service time {}, start time {}; idle for {:.1} s)",
            known(service),
            known(start),
            idle.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_a_decision() {
        let seen = Seen {
            concurrency: 7,
            queued: 3,
            service: Some(Duration::from_millis(250)),
            start: None,
            stable: 2.5,
            panic: 4.0,
            swift: 6.5,
            target: 5.0,
            idle: Duration::from_millis(1500),
        };
        let decision = Decision { replicas: 2, reason: Reason::Panic, wake_at: None, seen };
        assert_eq!(
            decision.to_string(),
            "2 wanted: sudden rise (7 at once, 3 of them queued; work 2.50 stable, 4.00 panic, 6.50 in the last second, of 5 \
             per pod; service time 0.25 s, start time unknown; idle for 1.5 s)"
        );
    }

    #[test]
    fn labels_and_sentences_of_reasons_are_unique() {
        use Reason::*;
        let all = [
            Idle,
            KeptWarm,
            Starting,
            Load,
            Waiting,
            Backlog,
            WaitingForCapacity,
            Bottleneck,
            Panic,
            Learning,
            Initial,
            Rollout,
            Delayed,
            Prewarmed,
            Scheduled,
            Min,
            Max,
            Paused,
        ];
        let words: std::collections::HashSet<_> = all.iter().map(|r| r.word()).collect();
        let sentences: std::collections::HashSet<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!((words.len(), sentences.len()), (all.len(), all.len()));
        assert!(words.iter().all(|w| w.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
    }
}
