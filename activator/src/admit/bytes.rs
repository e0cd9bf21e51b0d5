//! Caps on the bytes of waiting requests: of one namespace, and of the process.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A cap on bytes. Everything that is held under it gives its bytes back when it is dropped.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    most: u64,
}

/// Bytes taken from a namespace's and the process's budget, given back on drop.
#[derive(Debug)]
pub struct Held {
    bytes: u64,
    budgets: [Arc<Budget>; 2],
}

impl Budget {
    /// A cap of so many bytes.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self { used: AtomicU64::new(0), most }
    }

    /// Bytes that are held now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Held {
    /// Takes `bytes` from both budgets, or from none.
    #[must_use]
    pub fn take(bytes: u64, [namespace, process]: [&Arc<Budget>; 2]) -> Option<Self> {
        if !namespace.take(bytes) {
            return None;
        }
        if !process.take(bytes) {
            namespace.give(bytes);
            return None;
        }
        Some(Self { bytes, budgets: [namespace.clone(), process.clone()] })
    }

    /// Takes `bytes` from both budgets even if that is more than they have.
    #[must_use]
    pub fn over(bytes: u64, budgets: [&Arc<Budget>; 2]) -> Self {
        for budget in budgets {
            budget.used.fetch_add(bytes, Ordering::Relaxed);
        }
        Self { bytes, budgets: budgets.map(Arc::clone) }
    }

    /// How many.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for budget in &self.budgets {
            budget.give(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_caps_hold_and_bytes_come_back() {
        let (process, a, b) = (Arc::new(Budget::new(10)), Arc::new(Budget::new(8)), Arc::new(Budget::new(8)));
        let held = Held::take(6, [&a, &process]).unwrap();
        assert!(Held::take(3, [&a, &process]).is_none(), "over the namespace's cap");
        assert!(Held::take(5, [&b, &process]).is_none(), "over the process's cap");
        assert_eq!((a.used(), b.used(), process.used()), (6, 0, 6));
        drop(held);
        assert_eq!((a.used(), process.used()), (0, 0));
        assert!(Held::take(u64::MAX, [&a, &process]).is_none());
    }
}
