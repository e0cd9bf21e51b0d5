//! What both flows read from a Function's spec.

pub mod canonical;
pub mod invalid;
pub mod schedules;
