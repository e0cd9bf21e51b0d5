//! Overload manager: stages of memory pressure, and what each of them does.

mod stage;

use std::sync::atomic::{AtomicU8, Ordering};

pub use stage::{Decision, Stage, decide};

/// The current stage, which connections and admission read.
#[derive(Debug, Default)]
pub struct Overload(AtomicU8);

impl Overload {
    /// Returns the current stage.
    #[must_use]
    pub fn stage(&self) -> Stage {
        Stage::ALL.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// Sets the current stage.
    pub fn set(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_is_read_as_it_was_set() {
        let overload = Overload::default();
        assert_eq!(overload.stage(), Stage::Normal);
        for stage in Stage::ALL {
            overload.set(stage);
            assert_eq!(overload.stage(), stage);
        }
    }
}
