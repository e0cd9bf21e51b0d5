//! One sample of every metric, for the generated reference page.

use std::{fmt, sync::Arc};

use http::StatusCode;

use super::Metrics;
use crate::{
    admit::{Budget, Caps, Refusal, Scope},
    demand::Ledger,
};

impl Metrics {
    /// Returns OpenMetrics text in which every metric has a sample. A metric family without a sample is not encoded, so its
    /// help text and labels could not be listed otherwise.
    ///
    /// # Errors
    ///
    /// If a metric cannot be encoded.
    pub fn sample() -> Result<String, fmt::Error> {
        let ledger = Ledger::new();
        let account = ledger.account("", "", "");
        account.queue();
        let metrics = Self::new(ledger);
        let function = metrics.function("", "");
        function.answered(StatusCode::OK);
        function.turned_away(&Refusal::Deleted);
        metrics.refused("");
        metrics.woken(&Ok(()));
        metrics.mirrored("");
        metrics.throttled(Scope::Function);
        metrics.panicked("");
        metrics.tls.expires(1);
        let budget = Arc::new(Budget::new(Caps { requests: 1, bytes: 1 }));
        metrics.watch(&budget);
        metrics.encode()
    }
}
