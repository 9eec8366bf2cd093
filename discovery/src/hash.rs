//! Hashes that are the same in every process and every version, for consistent hashing and
//! subsetting. Not for hash tables whose keys an attacker chooses.

/// Sends calls of one key to one instance, if the balancer hashes: an extension of a request.
///
/// ```
/// let mut request = tonic::Request::new("message");
/// request.extensions_mut().insert(discovery::HashKey::of(b"user-17"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashKey(pub u64);

impl HashKey {
    /// The key of these bytes: the same in every process and in every release (FNV-1a, 64 bits,
    /// mixed).
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(self::bytes(bytes))
    }
}

/// Splitmix64's increment: 2^64 over the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// FNV-1a over the bytes (Fowler, Noll, Vo; 64 bits), mixed so that every bit depends on all.
pub(crate) fn bytes(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    nth(fnv, 0)
}

/// The `n`th word of the splitmix64 sequence that begins at `seed` (Steele, Lea, Flood 2014).
/// Words of one seed are independent of each other and of the seed for all that matters here.
pub(crate) fn nth(seed: u64, n: u64) -> u64 {
    let mut word = seed.wrapping_add(GAMMA.wrapping_mul(n.wrapping_add(1)));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These words decide which instance serves which key: another release must give the same.
    #[test]
    fn never_changes() {
        // The published first outputs of splitmix64 seeded with 1234567.
        assert_eq!(nth(1_234_567, 0), 6_457_827_717_110_365_317);
        assert_eq!(nth(1_234_567, 1), 3_203_168_211_198_807_973);
        // FNV-1a's published value for "a", mixed.
        assert_eq!(bytes(b"a"), nth(0xaf63_dc4c_8601_ec8c, 0));
    }
}
