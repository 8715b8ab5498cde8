//! Tests of odd numbers that need no model: a unit against others like it, and against its own past.

/// Fewest peers that say what is usual.
const FEWEST: usize = 8;
/// The median of absolute deviations of a normal distribution, in standard deviations.
const MAD: f64 = 0.674_489_750_196_081_7;

/// How far each share lies from its peers', in standard deviations, the robust way: from the median, by the median of
/// deviations, and by what chance alone does to a share of so few.
///
/// A share is `(part, whole)`: undervotes of ballots, absentee votes of all votes. `None` where `whole` is 0, or where
/// there are fewer than eight shares to compare with. Shares are compared as `2 asin √share`, on which scale chance does
/// the same at all shares (Anscombe 1948).
pub fn against_peers(shares: &[(u64, u64)]) -> Vec<Option<f64>> {
    let angle = |(part, whole): &(u64, u64)| {
        let share = (*part as f64 + 0.375) / (*whole as f64 + 0.75);
        (*whole > 0).then(|| 2.0 * libm::asin(libm::sqrt(share.clamp(0.0, 1.0))))
    };
    let angles: Vec<Option<f64>> = shares.iter().map(angle).collect();
    let known: Vec<f64> = angles.iter().flatten().copied().collect();
    if known.len() < FEWEST {
        return vec![None; shares.len()];
    }
    let middle = median(known.clone());
    let spread = median(known.iter().map(|angle| (angle - middle).abs()).collect()) / MAD;
    let of = |(angle, share): (&Option<f64>, &(u64, u64))| {
        angle.map(|angle| (angle - middle) / libm::sqrt(spread * spread + 1.0 / (share.1 as f64 + 0.5)))
    };
    angles.iter().zip(shares).map(of).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Selections that have fewer votes than before, in a batch in which others gained or in which nobody did.
///
/// A count only grows; what falls is a restatement, and needs a reason.
pub fn fell(before: &[u64], now: &[u64]) -> Vec<usize> {
    let pairs = before.iter().zip(now).enumerate();
    pairs.filter(|(_, (before, now))| now < before).map(|(place, _)| place).collect()
}

/// The silence that 99 of 100 sources do not exceed, in whatever unit they are given in; `None` with fewer than eight.
///
/// A source that has said nothing for longer, while its count is not complete, is silent longer than its peers.
pub fn longest_silence(silences: &[u64]) -> Option<u64> {
    let mut sorted = silences.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * 99).div_ceil(100);
    (sorted.len() >= FEWEST).then(|| sorted[place - 1])
}

/// Which of some findings of one look to keep, so that of those kept no more than a share `rate` is false on average
/// (Benjamini and Hochberg 1995). `chances` says of each how likely chance alone would do as much.
pub fn benjamini_hochberg(chances: &[f64], rate: f64) -> Vec<bool> {
    let mut sorted: Vec<f64> = chances.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let all = sorted.len() as f64;
    let mut within = sorted.iter().enumerate().filter(|(rank, p)| **p <= rate * (*rank as f64 + 1.0) / all);
    let limit = within.next_back().map(|(_, p)| *p);
    chances.iter().map(|p| limit.is_some_and(|limit| *p <= limit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_unlike_its_peers_stands_out_and_chance_does_not() {
        let mut shares: Vec<(u64, u64)> = (0..40).map(|i| (20 + i % 5, 2_000)).collect();
        shares.push((1, 30));
        shares.push((200, 2_000));
        shares.push((0, 0));
        let scores = against_peers(&shares);
        assert!(scores[..41].iter().all(|s| s.is_some_and(|s| s.abs() < 4.0)), "{scores:?}");
        assert!(scores[41].is_some_and(|s| s > 8.0), "{scores:?}");
        assert_eq!(scores[42], None);
        assert_eq!(against_peers(&shares[..3]), vec![None; 3]);
        let even = against_peers(&[(0, 500); 9]);
        assert!(even.iter().all(|s| s.is_some_and(f64::is_finite)));
    }

    #[test]
    fn only_what_falls_fell() {
        assert_eq!(fell(&[5, 7, 0], &[6, 6, 0]), [1]);
        assert_eq!(fell(&[5, 7], &[5, 7]), [0_usize; 0]);
    }

    #[test]
    fn the_silence_of_peers_is_their_ninety_ninth_percentile() {
        let silences: Vec<u64> = (1..=200).collect();
        assert_eq!(longest_silence(&silences), Some(198));
        assert_eq!(longest_silence(&[1, 2, 3]), None);
    }

    // The example of the article: 15 tests, of which the first four are kept at 0.05.
    #[test]
    fn the_example_of_benjamini_and_hochberg_keeps_four() {
        let chances = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
            0.6528, 0.7590, 1.0,
        ];
        let kept = benjamini_hochberg(&chances, 0.05);
        assert_eq!(kept.iter().filter(|kept| **kept).count(), 4);
        assert!(kept[..4].iter().all(|kept| *kept));
        assert!(benjamini_hochberg(&[], 0.05).is_empty());
    }
}
