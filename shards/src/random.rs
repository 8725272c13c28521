//! Random numbers as a function of where they are used: Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as
//! 1, 2, 3" (SC 2011).
//!
//! Nothing is carried from one draw to the next, so a sample's augmentation is the same on whatever thread or rank it happens.

/// Four random words for a key and a counter.
pub fn philox(key: u64, counter: [u32; 4]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let mut key = [key as u32, (key >> 32) as u32];
    let mut words = counter;
    for _ in 0..10 {
        let product = [u64::from(words[0]) * u64::from(MULTIPLIERS[0]), u64::from(words[2]) * u64::from(MULTIPLIERS[1])];
        let high = product.map(|product| (product >> 32) as u32);
        words = [high[1] ^ words[1] ^ key[0], product[1] as u32, high[0] ^ words[3] ^ key[1], product[0] as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    words
}

/// A number in 0..count from a random word, each with probability 1 / count to within 2^-32.
pub fn below(word: u32, count: usize) -> usize {
    ((u64::from(word) * count as u64) >> 32) as usize
}

/// A number in [0, 1) from a random word.
pub fn unit(word: u32) -> f64 {
    f64::from(word) / 4294967296.0
}

/// A permutation of 0..count that depends on `seed` alone (Fisher-Yates).
pub fn permutation(seed: u64, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        let words = philox(seed, [at as u32, (at as u64 >> 32) as u32, 0, u32::from_le_bytes(*b"perm")]);
        let random = u64::from(words[0]) | u64::from(words[1]) << 32;
        let other = ((u128::from(random) * (at as u128 + 1)) >> 64) as usize;
        order.swap(at, other);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_words_published_with_it() {
        assert_eq!(philox(0, [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox(u64::MAX, [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(philox(0x299f_31d0_a409_3822, pi), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn permutations_hold_every_number_in_another_order_for_each_seed() {
        let [one, two] = [1, 2].map(|seed| permutation(seed, 1000));
        assert_ne!(one, two);
        assert_eq!(one, permutation(1, 1000));
        let mut sorted = one;
        sorted.sort();
        assert!(sorted.into_iter().eq(0..1000));
    }
}
