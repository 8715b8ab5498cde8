//! The elections that are projected, what is known before each, and in which order counties come in.

use canvass_forecast::{Area, Baseline, Factor, Past, Unit};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::counties::{self, COVARIATES, County};

/// Percent of the counties that are in at each stage.
pub const STAGES: [usize; 6] = [5, 10, 25, 50, 75, 90];

/// An election of the past, seen as one of tonight.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The year of the last election.
    pub before: u16,
    /// The year of the one that is projected.
    pub now: u16,
    /// What was known.
    pub baseline: Baseline,
    /// How it ended.
    pub finals: Vec<[u64; 2]>,
    /// Pairs of elections before it, to learn from.
    pub past: Vec<Past>,
}

/// Years of the table.
const YEARS: [u16; 4] = [2008, 2012, 2016, 2020];

/// 2012 to 2016, and 2016 to 2020, each with all pairs before it that the table has.
pub fn pairs(counties: &[County]) -> Vec<Pair> {
    let pair = |now: usize| {
        let Past { baseline, finals } = ended(counties, now);
        Pair { before: YEARS[now - 1], now: YEARS[now], baseline, finals, past: past(counties, now) }
    };
    vec![pair(2), pair(3)]
}

/// The pairs of elections before the one at this place of the years.
pub(super) fn past(counties: &[County], now: usize) -> Vec<Past> {
    (1..now).map(|now| ended(counties, now)).collect()
}

fn ended(counties: &[County], now: usize) -> Past {
    Past {
        baseline: baseline(counties, YEARS[now - 1], now.checked_sub(2).map(|before| YEARS[before])),
        finals: counties.iter().map(|county| county.votes(YEARS[now])).collect(),
    }
}

/// States within the nation; factors region, state, urban class, region with class, state with size of class.
pub(super) fn baseline(counties: &[County], last: u16, before: Option<u16>) -> Baseline {
    let states = counties::numbered(counties);
    let mut areas = vec![Area { parent: None, seats: 0 }];
    areas.extend(states.keys().map(|_| Area { parent: Some(0), seats: 1 }));
    let factor = |name: &str, levels| Factor { name: name.to_owned(), levels };
    let units = counties.iter().map(|county| {
        let state = states[county.st.as_str()];
        let region = counties::state(&county.st).map_or(0, |state| state.region);
        let class = county.ruralurban_cc - 1;
        Unit {
            area: 1 + state,
            votes: county.votes(last),
            before: before.map(|year| county.votes(year)),
            covariates: county.covariates(),
            levels: vec![region, state, class, region * 9 + class, state * 3 + class / 3],
        }
    });
    Baseline {
        areas,
        units: units.collect(),
        covariates: COVARIATES.iter().map(|name| (*name).to_owned()).collect(),
        factors: vec![
            factor("region", 4),
            factor("state", states.len()),
            factor("class", 9),
            factor("region and class", 36),
            factor("state and class", states.len() * 3),
        ],
        local: Some(1),
    }
}

/// In which order counties come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Any.
    Random(u64),
    /// After the polls close; the larger of a state take longer, by up to four hours, and each a random hour or so.
    Closing(u64),
    /// The largest last.
    Size,
}

impl Order {
    /// The five of the benchmark.
    pub const ALL: [Order; 5] =
        [Order::Random(1), Order::Random(2), Order::Closing(1), Order::Closing(2), Order::Size];

    /// Which of the orders of its kind it is, from 1.
    pub(super) fn seed(self) -> u64 {
        match self {
            Order::Random(seed) | Order::Closing(seed) => seed,
            Order::Size => 1,
        }
    }

    /// What it is called.
    pub fn name(self) -> String {
        match self {
            Order::Random(seed) => format!("random {seed}"),
            Order::Closing(seed) => format!("closing {seed}"),
            Order::Size => "largest last".to_owned(),
        }
    }

    /// Places of the counties, the first to come in first.
    pub fn places(self, counties: &[County], last: u16) -> Vec<usize> {
        let size = |place: &usize| counties[*place].votes(last).iter().sum::<u64>();
        let mut places: Vec<usize> = (0..counties.len()).collect();
        match self {
            Order::Size => places.sort_by_key(|place| (size(place), *place)),
            Order::Random(seed) => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let keys: Vec<u64> = places.iter().map(|_| rng.random()).collect();
                places.sort_by_key(|place| (keys[*place], *place));
            }
            Order::Closing(seed) => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let waits: Vec<f64> = places.iter().map(|_| -f64::ln(1.0 - rng.random::<f64>())).collect();
                let ranks = ranks(counties, last);
                let hour = |place: usize| {
                    let close = counties::state(&counties[place].st).map_or(0, |state| state.close);
                    f64::from(close) / 2.0 + 4.0 * ranks[place] + waits[place]
                };
                places.sort_by(|a, b| hour(*a).total_cmp(&hour(*b)).then(a.cmp(b)));
            }
        }
        places
    }
}

/// Each county's place among those of its state by votes, from 0 (smallest) to 1.
fn ranks(counties: &[County], last: u16) -> Vec<f64> {
    let size = |place: &usize| counties[*place].votes(last).iter().sum::<u64>();
    let mut ranks = vec![0.0; counties.len()];
    for state in counties::numbered(counties).keys() {
        let mut of: Vec<usize> = (0..counties.len()).filter(|place| counties[*place].st == **state).collect();
        of.sort_by_key(|place| (size(place), *place));
        for (rank, place) in of.iter().enumerate() {
            ranks[*place] = (rank + 1) as f64 / of.len() as f64;
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_has_each_county_once_and_the_largest_come_last() {
        let row = |i: u64| {
            let st = if i.is_multiple_of(2) { "NC" } else { "CA" };
            let votes = 100 + i * 37 % 101;
            format!("\n{i:05},{st},A,{votes},1,{votes},1,{votes},1,{votes},1,1,2,3,4,5,6,50000,8,9,3")
        };
        let header = "fips,st,county_name,dem08,gop08,dem12,gop12,dem16,gop16,dem20,gop20,white_pct,black_pct,\
            hispanic_pct,foreignborn_pct,age29andunder_pct,age65andolder_pct,median_hh_inc,lesscollege_pct,rural_pct,\
            ruralurban_cc";
        let table = format!("{header}{}", (0..60).map(row).collect::<String>());
        let counties = counties::read(table.as_bytes()).unwrap_or_default();
        assert_eq!(counties.len(), 60);
        for order in Order::ALL {
            let places = order.places(&counties, 2016);
            let mut sorted = places.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..60).collect::<Vec<_>>(), "{}", order.name());
            assert_eq!(places, order.places(&counties, 2016));
        }
        let votes = |place: &usize| counties[*place].votes(2016)[0];
        assert!(Order::Size.places(&counties, 2016).is_sorted_by_key(votes));
        assert_ne!(Order::Random(1).places(&counties, 2016), Order::Random(2).places(&counties, 2016));
    }
}
