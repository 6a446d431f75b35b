//! Text that looks and compresses like text, at the price of a copy.

use std::sync::LazyLock;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const WORDS: [&str; 32] = [
    "amber", "bridge", "candle", "delta", "ember", "forest", "garden", "harbour", "island", "journey", "kettle", "lantern", "meadow",
    "needle", "orchard", "pepper", "quarry", "river", "saddle", "timber", "umber", "valley", "willow", "yellow", "zephyr", "anchor",
    "bottle", "copper", "drawer", "engine", "falcon", "glacier",
];

/// The longest text that can be asked for, in bytes.
pub const LONGEST: usize = 1 << 20;

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut rng = StdRng::seed_from_u64(0);
    let mut text = String::with_capacity(4 * LONGEST);
    while text.len() < 4 * LONGEST {
        text.push_str(WORDS[rng.random_range(0..WORDS.len())]);
        text.push(' ');
    }
    text
});

/// A piece of words of this many bytes, at most [`LONGEST`].
pub fn words(rng: &mut impl Rng, length: usize) -> &'static str {
    let length = length.min(LONGEST);
    let start = rng.random_range(0..TEXT.len() - length);
    &TEXT[start..start + length]
}
