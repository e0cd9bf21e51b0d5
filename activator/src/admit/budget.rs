//! Caps on what waits: in one namespace, and in the process, each in requests and in bytes.
//!
//! Beside the caps, what waits for one function is at most four times what is still free in its namespace, and what waits in
//! one namespace at most four times what is still free in the process. So however many flood, each takes only a part of what
//! the others left, and something is left for the next one.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::refusal::{Full, Measure, Scope};

/// So many times what is free may one hold: four fifths of the whole, if it is alone.
const SHARE: u64 = 4;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Requests.
    pub requests: u64,
    /// Bytes that they hold in memory.
    pub bytes: u64,
}

/// What waits, and how much may. Everything that is held under it is given back when it is dropped.
#[derive(Debug)]
pub struct Budget {
    requests: Meter,
    bytes: Meter,
}

/// One number with its cap.
#[derive(Debug)]
struct Meter {
    used: AtomicU64,
    most: u64,
}

/// One request and its bytes, taken from a namespace's and the process's budget and given back on drop.
#[derive(Debug)]
pub struct Held {
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

    fn take(&self, amount: u64) -> bool {
        let fits = |used: u64| used.checked_add(amount).filter(|sum| *sum <= self.most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn take_anyhow(&self, amount: u64) {
        self.used.fetch_add(amount, Ordering::Relaxed);
    }

    fn give(&self, amount: u64) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
    }
}

impl Budget {
    /// With these caps.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self { requests: Meter::new(caps.requests), bytes: Meter::new(caps.bytes) }
    }

    /// What is held now.
    #[must_use]
    pub fn used(&self) -> Caps {
        Caps { requests: self.requests.used(), bytes: self.bytes.used() }
    }

    fn take(&self, bytes: u64) -> Result<(), Measure> {
        if !self.requests.take(1) {
            return Err(Measure::Requests);
        }
        if !self.bytes.take(bytes) {
            self.requests.give(1);
            return Err(Measure::Bytes);
        }
        Ok(())
    }

    /// Whether one who holds `used` of this may hold one request of so many bytes more. Two that ask at once may both be told
    /// no, or both yes: the caps hold all the same.
    fn leaves_enough(&self, used: Caps, bytes: u64) -> Result<(), Measure> {
        let fits = |used: u64, more, free: u64| used == 0 || used.saturating_add(more) <= free.saturating_mul(SHARE);
        if !fits(used.requests, 1, self.requests.free()) {
            return Err(Measure::Requests);
        }
        if !fits(used.bytes, bytes, self.bytes.free()) {
            return Err(Measure::Bytes);
        }
        Ok(())
    }

    fn give(&self, bytes: u64) {
        self.requests.give(1);
        self.bytes.give(bytes);
    }
}

impl Held {
    /// Takes one request of so many bytes from both budgets, or from none. `function` is what waits for its function already.
    ///
    /// # Errors
    ///
    /// Which cap it would be over.
    pub fn take(bytes: u64, function: Caps, [namespace, process]: [&Arc<Budget>; 2]) -> Result<Self, Full> {
        let of = |scope| move |measure| Full { scope, measure };
        namespace.leaves_enough(function, bytes).map_err(of(Scope::Namespace))?;
        process.leaves_enough(namespace.used(), bytes).map_err(of(Scope::Process))?;
        namespace.take(bytes).map_err(of(Scope::Namespace))?;
        if let Err(measure) = process.take(bytes) {
            namespace.give(bytes);
            return Err(Full { scope: Scope::Process, measure });
        }
        Ok(Self { bytes, budgets: Some([namespace.clone(), process.clone()]) })
    }

    /// Takes them from both budgets even if that is more than they have.
    #[must_use]
    pub fn over(bytes: u64, budgets: [&Arc<Budget>; 2]) -> Self {
        for budget in budgets {
            budget.requests.take_anyhow(1);
            budget.bytes.take_anyhow(bytes);
        }
        Self { bytes, budgets: Some(budgets.map(Arc::clone)) }
    }

    /// Takes nothing from any.
    #[must_use]
    pub fn nothing() -> Self {
        Self { bytes: 0, budgets: None }
    }

    /// Whether nothing was taken.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.budgets.is_none()
    }

    /// How many bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for budget in self.budgets.iter().flatten() {
            budget.give(self.bytes);
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

    /// The first caller of a function.
    fn first(bytes: u64, budgets: [&Arc<Budget>; 2]) -> Result<Held, Full> {
        Held::take(bytes, NOTHING, budgets)
    }

    #[rstest]
    #[case::namespace_requests(1, (1, 100), (10, 1000), Scope::Namespace, Measure::Requests)]
    #[case::namespace_bytes(60, (10, 100), (10, 1000), Scope::Namespace, Measure::Bytes)]
    #[case::process_requests(1, (10, 100), (1, 1000), Scope::Process, Measure::Requests)]
    #[case::process_bytes(60, (10, 1000), (10, 100), Scope::Process, Measure::Bytes)]
    fn the_caps_hold(
        #[case] bytes: u64,
        #[case] namespace: (u64, u64),
        #[case] process: (u64, u64),
        #[case] scope: Scope,
        #[case] measure: Measure,
    ) {
        let (namespace, process) = (budget(namespace.0, namespace.1), budget(process.0, process.1));
        let held = first(bytes, [&namespace, &process]).unwrap();
        assert_eq!(first(bytes, [&namespace, &process]).unwrap_err(), Full { scope, measure });
        let other = budget(10, 1000);
        assert_eq!(first(bytes, [&other, &process]).is_err(), scope == Scope::Process, "another namespace");
        let one = Caps { requests: 1, bytes };
        assert_eq!((namespace.used(), process.used()), (one, one), "what was refused has taken nothing");
        drop(held);
        assert_eq!((namespace.used(), process.used()), (NOTHING, NOTHING));
        assert!(first(u64::MAX, [&namespace, &process]).is_err(), "a length that a client made up");
        assert!(first(bytes, [&namespace, &process]).is_ok(), "what was given back can be taken again");
    }

    #[test]
    fn namespaces_that_flood_leave_room_for_the_next() {
        let process = budget(1000, u64::MAX);
        let mut held = vec![];
        let mut shares = vec![];
        for _ in 0..4 {
            let namespace = budget(500, u64::MAX);
            while let Ok(one) = first(1, [&namespace, &process]) {
                held.push(one);
            }
            shares.push(namespace.used().requests);
        }
        assert_eq!(shares, [500, 400, 80, 16]);
        assert!(first(1, [&budget(500, u64::MAX), &process]).is_ok());
    }

    #[test]
    fn a_function_that_floods_leaves_room_for_its_neighbours() {
        let (namespace, process) = (budget(100, 1000), budget(1000, 10_000));
        let mut flood: Vec<Held> = vec![];
        let refused = loop {
            let function = Caps { requests: flood.len() as u64, bytes: flood.len() as u64 };
            match Held::take(1, function, [&namespace, &process]) {
                Ok(held) => flood.push(held),
                Err(full) => break full,
            }
        };
        assert_eq!((flood.len(), refused), (80, Full { scope: Scope::Namespace, measure: Measure::Requests }));
        assert!(first(1, [&namespace, &process]).is_ok());
    }

    #[test]
    fn what_was_let_in_before_is_let_in_again() {
        let (namespace, process) = (budget(1, 10), budget(1, 10));
        let once = first(10, [&namespace, &process]).unwrap();
        let again = Held::over(10, [&namespace, &process]);
        assert_eq!(process.used(), Caps { requests: 2, bytes: 20 });
        assert!(first(0, [&namespace, &process]).is_err());
        drop((once, again));
        assert_eq!(process.used(), NOTHING);
    }
}
