//! The buckets that wakes take tokens from, and the tokens that a wake has taken.

use tokio::time::Instant;

use super::rejection::Scope;
use crate::rate_limit::{Rate, RateLimiter};

/// A rate of wakes that several functions share.
#[derive(Debug)]
pub(super) struct SharedRate {
    all: RateLimiter,
    /// Of functions that were woken a short time ago: half of the rate.
    repeated: RateLimiter,
}

/// The tokens that a wake has taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tokens {
    /// Number of buckets of [`Bucket::ALL`] that a token was taken from.
    pub(super) taken: usize,
    /// When the last of them is due.
    pub(super) due: Option<Instant>,
}

/// A bucket that a wake takes a token from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bucket {
    Function,
    Namespace(Share),
    Process(Share),
}

/// Whose tokens of a shared rate.
#[derive(Clone, Copy, Debug)]
pub(super) enum Share {
    /// Those of functions that were woken a short time ago. The others take none.
    Repeated,
    /// Those of all functions.
    All,
}

impl Bucket {
    /// In the order in which tokens are taken.
    pub(super) const ALL: [Self; 5] = [
        Self::Function,
        Self::Namespace(Share::Repeated),
        Self::Namespace(Share::All),
        Self::Process(Share::Repeated),
        Self::Process(Share::All),
    ];

    pub(super) fn scope(self) -> Scope {
        match self {
            Self::Function => Scope::Function,
            Self::Namespace(_) => Scope::Namespace,
            Self::Process(_) => Scope::Process,
        }
    }
}

impl SharedRate {
    pub(super) fn new(rate: Rate) -> Self {
        let half = Rate { burst: (rate.burst / 2).max(1), interval: rate.interval.saturating_mul(2) };
        Self { all: RateLimiter::new(rate), repeated: RateLimiter::new(half) }
    }

    pub(super) fn limiter(&mut self, share: Share) -> &mut RateLimiter {
        match share {
            Share::Repeated => &mut self.repeated,
            Share::All => &mut self.all,
        }
    }
}
