//! The content of `status`: conditions, traffic percentages and the Events for their transitions. Pure, except for
//! [`transitions`].

pub mod assignment;
pub mod conditions;
pub mod last_written;
pub mod traffic;
pub mod transitions;
