//! Time of the simulator.

/// Microseconds since the start of the trace, or a duration.
pub(crate) type Micros = u64;

pub(crate) const MICROS_PER_SECOND: f64 = 1e6;
