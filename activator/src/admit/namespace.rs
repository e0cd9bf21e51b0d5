//! What the functions of one namespace share.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    budget::{Budget, Caps},
    wake_tokens::SharedRate,
};
use crate::rate_limit::Rate;

/// Limits that the functions of one namespace share: the caps on their queues, and the rate of wakes.
#[derive(Debug)]
pub struct Namespace {
    pub(super) budget: Arc<Budget>,
    /// Locked for a few instructions while a breaker is locked, and never the other way round.
    pub(super) wakes: Mutex<SharedRate>,
}

impl Namespace {
    /// Creates a namespace with empty queues and a full bucket of wakes.
    #[must_use]
    pub fn new(caps: Caps, wakes: Rate) -> Arc<Self> {
        Arc::new(Self { budget: Arc::new(Budget::new(caps)), wakes: Mutex::new(SharedRate::new(wakes)) })
    }
}
