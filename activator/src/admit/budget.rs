//! Caps on queued requests and bytes, per namespace and per process.
//!
//! In addition to the caps, the queue of one function may hold at most four times what is still free in its namespace,
//! and the queues of one namespace at most four times what is still free in the process. However many functions are
//! flooded, each leaves a part of the capacity for the next.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::rejection::{CapReached, Measure, Scope};

/// Multiple of the free capacity that one queue may hold: four fifths of the cap if there is no other.
const FREE_MULTIPLE: u64 = 4;

/// Upper bounds, or usage, of what is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Requests.
    pub requests: u64,
    /// Bytes that they hold in memory.
    pub bytes: u64,
}

/// Usage of queue capacity, and its caps.
#[derive(Debug)]
pub struct Budget {
    requests: Meter,
    bytes: Meter,
    /// Nothing more may be reserved, whatever is free.
    closed: AtomicBool,
}

/// One number with its cap.
#[derive(Debug)]
struct Meter {
    used: AtomicU64,
    most: u64,
}

/// A reservation of one request and its bytes in the budgets of a namespace and of the process. Released on drop.
#[derive(Debug)]
pub struct QueueReservation {
    bytes: u64,
    budgets: Option<[Arc<Budget>; 2]>,
}

impl Meter {
    fn new(most: u64) -> Self {
        Self { used: AtomicU64::new(0), most }
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn free(&self) -> u64 {
        self.most.saturating_sub(self.used())
    }

    fn try_acquire(&self, amount: u64) -> bool {
        let fits = |used: u64| used.checked_add(amount).filter(|sum| *sum <= self.most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn acquire_past_cap(&self, amount: u64) {
        self.used.fetch_add(amount, Ordering::Relaxed);
    }

    fn release(&self, amount: u64) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
    }
}

impl Budget {
    /// Creates an unused budget with these caps.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self { requests: Meter::new(caps.requests), bytes: Meter::new(caps.bytes), closed: AtomicBool::new(false) }
    }

    /// Sets whether the budget is closed: memory is so short that nothing more may be queued.
    pub fn set_closed(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
    }

    /// Returns the current usage.
    #[must_use]
    pub fn used(&self) -> Caps {
        Caps { requests: self.requests.used(), bytes: self.bytes.used() }
    }

    fn try_acquire(&self, bytes: u64) -> Result<(), Measure> {
        if !self.requests.try_acquire(1) {
            return Err(Measure::Requests);
        }
        if !self.bytes.try_acquire(bytes) {
            self.requests.release(1);
            return Err(Measure::Bytes);
        }
        Ok(())
    }

    /// Checks that whoever holds `used` leaves a fair share for the others with one more request. Two concurrent checks
    /// may both fail or both pass; the caps hold in any case.
    fn check_fair_share(&self, used: Caps, bytes: u64) -> Result<(), Measure> {
        let fits =
            |used: u64, more, free: u64| used == 0 || used.saturating_add(more) <= free.saturating_mul(FREE_MULTIPLE);
        if !fits(used.requests, 1, self.requests.free()) {
            return Err(Measure::Requests);
        }
        if !fits(used.bytes, bytes, self.bytes.free()) {
            return Err(Measure::Bytes);
        }
        Ok(())
    }

    fn release(&self, bytes: u64) {
        self.requests.release(1);
        self.bytes.release(bytes);
    }
}

impl QueueReservation {
    /// Reserves one request of this many bytes in both budgets, or in neither. `function` is what the queue of its
    /// function holds already.
    ///
    /// # Errors
    ///
    /// The cap that was reached.
    pub fn try_new(bytes: u64, function: Caps, [namespace, process]: [&Arc<Budget>; 2]) -> Result<Self, CapReached> {
        let of = |scope| move |measure| CapReached { scope, measure };
        if process.closed.load(Ordering::Relaxed) {
            return Err(CapReached { scope: Scope::Process, measure: Measure::Memory });
        }
        namespace.check_fair_share(function, bytes).map_err(of(Scope::Namespace))?;
        process.check_fair_share(namespace.used(), bytes).map_err(of(Scope::Process))?;
        namespace.try_acquire(bytes).map_err(of(Scope::Namespace))?;
        if let Err(measure) = process.try_acquire(bytes) {
            namespace.release(bytes);
            return Err(CapReached { scope: Scope::Process, measure });
        }
        Ok(Self { bytes, budgets: Some([namespace.clone(), process.clone()]) })
    }

    /// Reserves in both budgets even past their caps.
    #[must_use]
    pub fn past_cap(bytes: u64, budgets: [&Arc<Budget>; 2]) -> Self {
        for budget in budgets {
            budget.requests.acquire_past_cap(1);
            budget.bytes.acquire_past_cap(bytes);
        }
        Self { bytes, budgets: Some(budgets.map(Arc::clone)) }
    }

    /// Reserves nothing.
    #[must_use]
    pub fn none() -> Self {
        Self { bytes: 0, budgets: None }
    }

    /// Whether nothing is reserved.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.budgets.is_none()
    }

    /// Bytes reserved.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for QueueReservation {
    fn drop(&mut self) {
        for budget in self.budgets.iter().flatten() {
            budget.release(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn budget(requests: u64, bytes: u64) -> Arc<Budget> {
        Arc::new(Budget::new(Caps { requests, bytes }))
    }

    const NOTHING: Caps = Caps { requests: 0, bytes: 0 };

    /// The first request of a function.
    fn first(bytes: u64, budgets: [&Arc<Budget>; 2]) -> Result<QueueReservation, CapReached> {
        QueueReservation::try_new(bytes, NOTHING, budgets)
    }

    #[rstest]
    #[case::namespace_requests(1, (1, 100), (10, 1000), Scope::Namespace, Measure::Requests)]
    #[case::namespace_bytes(60, (10, 100), (10, 1000), Scope::Namespace, Measure::Bytes)]
    #[case::process_requests(1, (10, 100), (1, 1000), Scope::Process, Measure::Requests)]
    #[case::process_bytes(60, (10, 1000), (10, 100), Scope::Process, Measure::Bytes)]
    fn caps_are_enforced(
        #[case] bytes: u64,
        #[case] namespace: (u64, u64),
        #[case] process: (u64, u64),
        #[case] scope: Scope,
        #[case] measure: Measure,
    ) {
        let (namespace, process) = (budget(namespace.0, namespace.1), budget(process.0, process.1));
        let reservation = first(bytes, [&namespace, &process]).unwrap();
        assert_eq!(first(bytes, [&namespace, &process]).unwrap_err(), CapReached { scope, measure });
        let other = budget(10, 1000);
        assert_eq!(first(bytes, [&other, &process]).is_err(), scope == Scope::Process, "another namespace");
        let one = Caps { requests: 1, bytes };
        assert_eq!((namespace.used(), process.used()), (one, one), "what was refused has taken nothing");
        drop(reservation);
        assert_eq!((namespace.used(), process.used()), (NOTHING, NOTHING));
        assert!(first(u64::MAX, [&namespace, &process]).is_err(), "a length that a client made up");
        assert!(first(bytes, [&namespace, &process]).is_ok(), "what was sent_at back can be taken again");
    }

    #[test]
    fn flooded_namespaces_leave_capacity_for_the_next() {
        let process = budget(1000, u64::MAX);
        let mut reservation = vec![];
        let mut shares = vec![];
        for _ in 0..4 {
            let namespace = budget(500, u64::MAX);
            while let Ok(one) = first(1, [&namespace, &process]) {
                reservation.push(one);
            }
            shares.push(namespace.used().requests);
        }
        assert_eq!(shares, [500, 400, 80, 16]);
        assert!(first(1, [&budget(500, u64::MAX), &process]).is_ok());
    }

    #[test]
    fn a_flooded_function_leaves_capacity_for_others() {
        let (namespace, process) = (budget(100, 1000), budget(1000, 10_000));
        let mut flood: Vec<QueueReservation> = vec![];
        let refused = loop {
            let function = Caps { requests: flood.len() as u64, bytes: flood.len() as u64 };
            match QueueReservation::try_new(1, function, [&namespace, &process]) {
                Ok(reservation) => flood.push(reservation),
                Err(full) => break full,
            }
        };
        assert_eq!((flood.len(), refused), (80, CapReached { scope: Scope::Namespace, measure: Measure::Requests }));
        assert!(first(1, [&namespace, &process]).is_ok());
    }

    #[test]
    fn a_closed_budget_admits_only_what_was_admitted_before() {
        let (namespace, process) = (budget(10, 100), budget(10, 100));
        process.set_closed(true);
        let refused = first(1, [&namespace, &process]).unwrap_err();
        assert_eq!(refused, CapReached { scope: Scope::Process, measure: Measure::Memory });
        drop(QueueReservation::past_cap(1, [&namespace, &process]));
        process.set_closed(false);
        assert!(first(1, [&namespace, &process]).is_ok());
    }

    #[test]
    fn a_readmitted_request_may_exceed_the_caps() {
        let (namespace, process) = (budget(1, 10), budget(1, 10));
        let once = first(10, [&namespace, &process]).unwrap();
        let again = QueueReservation::past_cap(10, [&namespace, &process]);
        assert_eq!(process.used(), Caps { requests: 2, bytes: 20 });
        assert!(first(0, [&namespace, &process]).is_err());
        drop((once, again));
        assert_eq!(process.used(), NOTHING);
    }
}
