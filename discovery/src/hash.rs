//! Hashes that are the same in every process and every release, for consistent hashing and subsetting.
//! Not for hash tables whose keys an attacker can choose.

/// The key of a request, set in the request's extensions. With
/// [`Policy::ConsistentHash`](crate::balance::Policy::ConsistentHash), calls with the same key go to
/// the same instance.
///
/// ```
/// let mut request = tonic::Request::new("message");
/// request.extensions_mut().insert(discovery::HashKey::of(b"user-17"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashKey(pub u64);

impl HashKey {
    /// The hash of these bytes, which is the same in every process and every release (FNV-1a, 64 bits,
    /// mixed).
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(self::bytes(bytes))
    }
}

/// Splitmix64's increment: 2^64 over the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// FNV-1a over the bytes (Fowler, Noll, Vo; 64 bits), mixed so that every bit depends on all bytes.
pub(crate) fn bytes(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    nth(fnv, 0)
}

/// The `n`th word of the splitmix64 sequence of `seed` (Steele, Lea, Flood 2014). The words of one
/// seed are statistically independent of each other and of the seed.
pub(crate) fn nth(seed: u64, n: u64) -> u64 {
    let mut word = seed.wrapping_add(GAMMA.wrapping_mul(n.wrapping_add(1)));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These words decide which instance serves which key, so every release must give the same.
    #[test]
    fn hashes_are_the_same_in_every_release() {
        // The published first outputs of splitmix64 seeded with 1234567.
        assert_eq!(nth(1_234_567, 0), 6_457_827_717_110_365_317);
        assert_eq!(nth(1_234_567, 1), 3_203_168_211_198_807_973);
        // The published FNV-1a hash of "a", mixed.
        assert_eq!(bytes(b"a"), nth(0xaf63_dc4c_8601_ec8c, 0));
    }
}
