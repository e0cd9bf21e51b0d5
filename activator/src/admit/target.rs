//! The target of a request: by traffic percentage, by tag, or as a mirrored request.

use std::sync::Arc;

/// The revision that a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A revision that has traffic. If that loses its traffic while the request is queued, another one.
    Traffic {
        /// What selects the revision.
        affinity: Affinity,
    },
    /// The revision of this name, whatever its traffic: a tag points to it. The request waits for that one alone.
    Revision(Arc<str>),
    /// The same for a mirrored request. It takes nothing of the queue capacity, and is rejected if the revision cannot
    /// be woken at once.
    Mirror(Arc<str>),
}

/// What selects one of the revisions that have traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// At random, by the traffic percentages.
    #[default]
    None,
    /// A value that selects the same revision every time, as long as the percentages are the same: see
    /// [`Affinity::of`].
    Value(u64),
    /// The name of the revision that responded before. At random, if it has no traffic any more.
    Revision(Box<str>),
}

impl Target {
    /// Any revision that has traffic, at random.
    pub const ANY: Self = Self::Traffic { affinity: Affinity::None };
}

impl Affinity {
    /// Hashes a value that identifies a client. The result is the same in every process and version.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        // FNV-1a, which is short and specified, and then a mix: its upper bits alone are poor for short values.
        let mut hash = value.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self::Value(hash ^ (hash >> 31))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_hash_is_stable() {
        // Activators of two versions must agree: these numbers may never change.
        assert_eq!(Affinity::of(b""), Affinity::Value(17_665_956_581_633_026_203));
        assert_eq!(Affinity::of(b"alice"), Affinity::Value(14_254_268_223_963_220_572));
    }

    #[test]
    fn affinity_hash_spreads_short_values_evenly() {
        let mut counts = [0_u32; 10];
        for user in 0..10_000 {
            let Affinity::Value(value) = Affinity::of(format!("user-{user}").as_bytes()) else { panic!("a value") };
            counts[((u128::from(value) * 10) >> 64) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}
