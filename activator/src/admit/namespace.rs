//! What the functions of one namespace share.

use std::sync::Arc;

use parking_lot::Mutex;

use super::budget::{Budget, Caps};
use crate::rate_limit::{Rate, RateLimiter};

/// What the functions of one namespace share: how much of theirs may wait, and how often one of them may be woken.
#[derive(Debug)]
pub struct Namespace {
    pub(super) budget: Arc<Budget>,
    /// Locked for a few instructions while a gate is locked, and never the other way round.
    pub(super) wakes: Mutex<RateLimiter>,
}

impl Namespace {
    /// A namespace in which nothing waits and nothing was woken.
    #[must_use]
    pub fn new(caps: Caps, wakes: Rate) -> Arc<Self> {
        Arc::new(Self { budget: Arc::new(Budget::new(caps)), wakes: Mutex::new(RateLimiter::new(wakes)) })
    }
}
