//! Sets of chunks.

/// Numbers in a word of [`Bits`].
pub(crate) const WORD: usize = 64;

/// A set of chunk numbers below a fixed bound, one bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bits {
    len: usize,
    /// Bit `n % 64` of word `n / 64`; bits from `len` on are 0.
    words: Vec<u64>,
}

impl Bits {
    /// No number below `len`.
    pub(crate) fn none(len: usize) -> Self {
        Bits { len, words: vec![0; len.div_ceil(WORD)] }
    }

    /// Every number below `len`.
    pub(crate) fn all(len: usize) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(WORD)];
        if let (Some(last), rest @ 1..) = (words.last_mut(), len % WORD) {
            *last = (1 << rest) - 1;
        }
        Bits { len, words }
    }

    /// The bound: every number in the set is below it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// # Panics
    /// When `n` is not below [`len`](Self::len).
    pub(crate) fn set(&mut self, n: u32) {
        self.check(n);
        self.words[n as usize / WORD] |= 1 << (n as usize % WORD);
    }

    /// # Panics
    /// When `n` is not below [`len`](Self::len).
    pub(crate) fn clear(&mut self, n: u32) {
        self.check(n);
        self.words[n as usize / WORD] &= !(1 << (n as usize % WORD));
    }

    fn check(&self, n: u32) {
        assert!((n as usize) < self.len, "chunk {n} of {}", self.len);
    }

    /// Whether `n` is in the set; numbers from [`len`](Self::len) on are not.
    pub(crate) fn contains(&self, n: u32) -> bool {
        self.words.get(n as usize / WORD).is_some_and(|w| w >> (n as usize % WORD) & 1 == 1)
    }

    /// How many numbers are in the set.
    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Keeps what is in both sets.
    ///
    /// # Panics
    /// When the bounds differ.
    pub(crate) fn and_with(&mut self, other: &Bits) {
        assert_eq!(self.len, other.len, "sets over different chunks");
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
    }

    /// The same numbers below a larger bound.
    pub(crate) fn extended(&self, len: usize) -> Bits {
        let mut words = self.words.clone();
        words.resize(len.max(self.len).div_ceil(WORD), 0);
        Bits { len: len.max(self.len), words }
    }

    /// The words, [`WORD`] numbers each.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The numbers in the set, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..)
            .step_by(WORD)
            .zip(&self.words)
            .flat_map(|(first, &word)| ones(word).map(move |i| first + i))
    }
}

/// Places of the bits of `word` that are 1, ascending.
pub(crate) fn ones(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let place = word.trailing_zeros();
            word &= word - 1;
            place
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_a_set(len in 1usize..300, changes in proptest::collection::vec((any::<u32>(), any::<bool>()), 0..200)) {
            let (mut bits, mut set) = (Bits::none(len), BTreeSet::new());
            for (n, put) in changes {
                let n = n % len as u32;
                if put {
                    bits.set(n);
                    set.insert(n);
                } else {
                    bits.clear(n);
                    set.remove(&n);
                }
            }
            prop_assert_eq!(bits.count(), set.len());
            prop_assert!(bits.iter().eq(set.iter().copied()));
            prop_assert!((0..len as u32 + 70).all(|n| bits.contains(n) == set.contains(&n)));
            let mut all = Bits::all(len);
            prop_assert_eq!(all.count(), len);
            all.and_with(&bits);
            prop_assert_eq!(&all, &bits);
            all.and_with(&Bits::none(len));
            prop_assert_eq!(all.count(), 0);
            let extended = bits.extended(len + 100);
            prop_assert!(extended.iter().eq(bits.iter()) && extended.len() == len + 100);
        }
    }
}
