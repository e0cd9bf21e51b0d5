//! The ledger as a source of metrics.

use rouse_crds::demand::RevisionDemand;

use super::ledger::Ledger;
use crate::metrics::DemandSource;

impl DemandSource for Ledger {
    fn visit(&self, visit: &mut dyn FnMut(&RevisionDemand)) {
        self.each(visit);
    }
}
