//! Why a count was decided, in words and numbers.

use std::{fmt, time::Duration};

/// How many pods, why, and when to ask again. Its text is a sentence for an event or a debug page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Pods wanted.
    pub replicas: u32,
    /// What decided it.
    pub reason: Reason,
    /// Ask again at this time even if nothing has changed. `None`: nothing will change by itself.
    pub wake_at: Option<Duration>,
    /// What it was decided from.
    pub seen: Seen,
}

/// Numbers that a decision was made from. Averages are in what the target counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Requests at once, waiting or in a pod, at this moment.
    pub concurrency: u64,
    /// Those among them that wait.
    pub queued: u64,
    /// Time that a request spends in a pod, if it is known.
    pub service: Option<Duration>,
    /// Time that a pod takes to start, if it is known.
    pub start: Option<Duration>,
    /// Average over the stable window, or over the part of it that says something about now.
    pub stable: f64,
    /// Average over the panic window.
    pub panic: f64,
    /// Average over the last second.
    pub swift: f64,
    /// Wanted per pod.
    pub target: f64,
    /// Time since the last request.
    pub idle: Duration,
}

/// What decided a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No request for the whole idle time-out.
    Idle,
    /// No load, but the idle time-out is not over.
    KeptWarm,
    /// The average over the stable window.
    Load,
    /// Requests wait and no pod is ready yet.
    Waiting,
    /// Requests have piled up that the pods for the load would not serve in time.
    Backlog,
    /// Pods are late that were asked for, so asking for more is no help: no room, a slow image, a starved node.
    WaitingForCapacity,
    /// More pods have not served more requests, so what limits them is elsewhere.
    Bottleneck,
    /// A sudden rise, or one that was lately.
    Panic,
    /// Too little is known since the start to go below the count that there is.
    Learning,
    /// The revision is being proven.
    Initial,
    /// Calls are about to be led to the revision.
    Rollout,
    /// More was wanted within the scale-down delay.
    Delayed,
    /// The next call is likely soon, going by earlier ones.
    Prewarmed,
    /// A schedule.
    Scheduled,
    /// `scaling.min`.
    Min,
    /// `scaling.max`.
    Max,
    /// `scaling.paused`.
    Paused,
}

impl Reason {
    /// One lower-case word, for the label of a metric.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::KeptWarm => "kept_warm",
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
            Self::Load => "load over the stable window",
            Self::Waiting => "requests wait for a first pod",
            Self::Backlog => "a backlog of queued requests",
            Self::WaitingForCapacity => "pods that were asked for are late, so no more are asked for",
            Self::Bottleneck => "more pods have not served more requests, so no more are asked for",
            Self::Panic => "sudden rise",
            Self::Learning => "kept until a whole window has been seen",
            Self::Initial => "being proven",
            Self::Rollout => "a roll-out is about to lead calls here",
            Self::Delayed => "more was wanted within scaleDownDelay",
            Self::Prewarmed => "a call is likely soon",
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
    fn a_decision_explains_itself() {
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
    fn words_and_sentences_tell_reasons_apart() {
        use Reason::*;
        let all = [
            Idle,
            KeptWarm,
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
