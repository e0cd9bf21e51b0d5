//! A double-ended queue that stores its first and last entry inline.

use std::{collections::VecDeque, mem, ops::Index};

/// A [`VecDeque`] whose first and last entry are stored inline and not on the heap. With ten thousand functions, the state
/// of a revision is not in the CPU cache when it is decided, and each heap access costs more than the computation on it.
#[derive(Clone, Debug)]
pub(crate) struct InlineEndsDeque<T> {
    front: Option<T>,
    /// Empty while `back` is `None`.
    middle: VecDeque<T>,
    /// `None` while `front` is `None`.
    back: Option<T>,
}

impl<T> Default for InlineEndsDeque<T> {
    fn default() -> Self {
        Self { front: None, middle: VecDeque::new(), back: None }
    }
}

impl<T> InlineEndsDeque<T> {
    pub(crate) fn len(&self) -> usize {
        usize::from(self.front.is_some()) + self.middle.len() + usize::from(self.back.is_some())
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.front.as_ref()
    }

    pub(crate) fn back(&self) -> Option<&T> {
        self.back.as_ref().or(self.front.as_ref())
    }

    pub(crate) fn back_mut(&mut self) -> Option<&mut T> {
        self.back.as_mut().or(self.front.as_mut())
    }

    pub(crate) fn push_back(&mut self, entry: T) {
        if self.front.is_none() {
            self.front = Some(entry);
        } else if let Some(before) = self.back.replace(entry) {
            self.middle.push_back(before);
        }
    }

    pub(crate) fn pop_back(&mut self) -> Option<T> {
        let before = self.middle.pop_back();
        mem::replace(&mut self.back, before).or_else(|| self.front.take())
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let next = self.middle.pop_front().or_else(|| self.back.take());
        mem::replace(&mut self.front, next)
    }
}

impl<T> Index<usize> for InlineEndsDeque<T> {
    type Output = T;

    /// Returns the entry at an index, counted from the front.
    #[expect(clippy::expect_used, reason = "panics out of bounds, as VecDeque does")]
    fn index(&self, index: usize) -> &T {
        let entry = match index.checked_sub(1) {
            None => self.front.as_ref(),
            Some(inner) if inner == self.middle.len() => self.back.as_ref(),
            Some(inner) => self.middle.get(inner),
        };
        entry.expect("no entry with this index")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_vec_deque(steps in prop::collection::vec((0u8..7, any::<u8>()), 0..60)) {
            let (mut ends, mut plain) = (InlineEndsDeque::default(), VecDeque::new());
            for (kind, entry) in steps {
                match kind {
                    0 => prop_assert_eq!(ends.pop_front(), plain.pop_front()),
                    1 => prop_assert_eq!(ends.pop_back(), plain.pop_back()),
                    2 => prop_assert_eq!(ends.back_mut().map(|back| *back = entry), plain.back_mut().map(|back| *back = entry)),
                    _ => {
                        ends.push_back(entry);
                        plain.push_back(entry);
                    }
                }
                prop_assert_eq!((ends.len(), ends.front(), ends.back()), (plain.len(), plain.front(), plain.back()));
                for (index, entry) in plain.iter().enumerate() {
                    prop_assert_eq!(&ends[index], entry);
                }
            }
        }
    }
}
