//! A set of small numbers.

/// Grows as needed; what was never put is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bits(Vec<u8>);

impl Bits {
    /// From its bytes, the lowest number in the lowest bit of the first.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// As for [`Bits::from_bytes`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether `n` is in it.
    #[must_use]
    pub fn has(&self, n: usize) -> bool {
        self.0.get(n / 8).is_some_and(|byte| byte & (1 << (n % 8)) != 0)
    }

    /// Puts `n` in, or takes it out; whether that changed anything.
    pub fn put(&mut self, n: usize, is_in: bool) -> bool {
        if self.has(n) == is_in {
            return false;
        }
        if self.0.len() <= n / 8 {
            self.0.resize(n / 8 + 1, 0);
        }
        self.0[n / 8] ^= 1 << (n % 8);
        true
    }

    /// Puts in everything of another.
    pub fn join(&mut self, other: &Bits) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (byte, more) in self.0.iter_mut().zip(&other.0) {
            *byte |= more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set() {
        let mut bits = Bits::default();
        assert!(bits.put(9, true) && !bits.put(9, true) && !bits.put(70, false));
        let mut other = Bits::from_bytes(&[1]);
        other.join(&bits);
        assert_eq!((0..80).filter(|n| other.has(*n)).collect::<Vec<_>>(), [0, 9]);
        assert_eq!(other.as_bytes(), [1, 2]);
        assert!(bits.put(9, false) && !bits.has(9));
    }
}
