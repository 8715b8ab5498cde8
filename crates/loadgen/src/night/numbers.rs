//! Plausible numbers: sizes, shares and how votes fall to selections.

use rand::Rng;
use rand::rngs::StdRng;

/// About normal, with middle 0 and spread 1, never beyond 6: the sum of twelve draws.
pub(super) fn bell(rng: &mut StdRng) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

/// A size whose logarithm is about normal.
pub(super) fn lognormal(rng: &mut StdRng, middle: f64, spread: f64, least: f64, most: f64) -> u64 {
    whole((middle.ln() + spread * bell(rng)).exp().clamp(least, most))
}

/// The whole part of a number of people; nothing here comes near the limits.
// A float has no checked conversion; the bounds make this one exact.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn whole(number: f64) -> u64 {
    number.clamp(0.0, 1e12) as u64
}

/// `count` as a float.
#[allow(clippy::cast_precision_loss)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// `share` of `count`, rounded down.
pub(super) fn part(count: u64, share: f64) -> u64 {
    whole(float(count) * share)
}

/// Splits `total` votes by weights, with some noise; the parts add up to the total.
pub(super) fn split(rng: &mut StdRng, total: u64, weights: &[f64], noise: f64) -> Vec<u64> {
    let weights: Vec<f64> = weights.iter().map(|w| (w * (1.0 + noise * bell(rng))).max(0.002)).collect();
    let sum: f64 = weights.iter().sum();
    let mut parts: Vec<u64> = weights.iter().map(|w| part(total, w / sum)).collect();
    // What rounding left over falls to anyone by chance, as the weights have it.
    for _ in parts.iter().sum::<u64>()..total {
        let mut left = rng.random::<f64>() * sum;
        let lucky = weights.iter().position(|w| {
            left -= w;
            left <= 0.0
        });
        if let Some(lucky) = parts.get_mut(lucky.unwrap_or(0)) {
            *lucky += 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn parts_add_up_and_sizes_stay_in_their_bounds() {
        let mut rng = StdRng::seed_from_u64(3);
        for total in [0, 1, 7, 500, 12_345] {
            let parts = split(&mut rng, total, &[0.5, 0.3, 0.15, 0.05], 0.2);
            assert_eq!((parts.len(), parts.iter().sum::<u64>()), (4, total));
        }
        assert!((0..1_000).all(|_| (50..=900).contains(&lognormal(&mut rng, 200.0, 1.0, 50.0, 900.0))));
        assert_eq!((part(10, 0.99), whole(-3.0), whole(2.9)), (9, 0, 2));
    }
}
