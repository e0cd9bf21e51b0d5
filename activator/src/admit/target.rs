//! Which revision a request is for.

use std::sync::Arc;

/// Which revision a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One of those that have a share of the calls. If that loses its share while the request waits, another one.
    Shares {
        /// What makes it this one and not that one.
        affinity: Affinity,
    },
    /// The one of this name, whatever its share: it was called by its tag. The request waits for that one alone.
    Revision(Arc<str>),
    /// The same for a copy of a request that went elsewhere. It takes nothing of what may wait here from those that are
    /// answered, and is turned away where it could not be woken for at once.
    Copy(Arc<str>),
}

/// What makes a request go to one revision and not to another, among those that have a share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Chance.
    #[default]
    None,
    /// A value that goes to the same revision every time, as long as the shares are the same: see [`Affinity::of`].
    Value(u64),
    /// The name of the revision that answered before. Chance, if it has no share any more.
    Revision(Box<str>),
}

impl Target {
    /// Whichever revision chance gives it.
    pub const ANY: Self = Self::Shares { affinity: Affinity::None };
}

impl Affinity {
    /// For a value by which callers are told apart. It is the same in every process, of whichever version.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        // FNV-1a, which is short and written down, and then a mix: its upper bits alone are poor for short values.
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
    fn a_value_is_the_same_number_for_ever() {
        // Activators of two versions must agree: these numbers may never change.
        assert_eq!(Affinity::of(b""), Affinity::Value(17_665_956_581_633_026_203));
        assert_eq!(Affinity::of(b"alice"), Affinity::Value(14_254_268_223_963_220_572));
    }

    #[test]
    fn short_values_are_spread_evenly() {
        let mut counts = [0_u32; 10];
        for user in 0..10_000 {
            let Affinity::Value(value) = Affinity::of(format!("user-{user}").as_bytes()) else { panic!("a value") };
            counts[((u128::from(value) * 10) >> 64) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}
