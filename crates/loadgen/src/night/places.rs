//! A fictional state: its counties and precincts, its parties and its contests.

use std::collections::BTreeSet;

use canvass_election::Definition;
use canvass_election::definition::{
    Contest, ContestKind, CountItemType, Counting, Eligibility, Partitions, Parts, Party, Selection,
    Threshold, Unit, VotePolicy, Voting,
};
use canvass_election::ids::UnitId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::numbers::{bell, lognormal};
use super::{COUNCIL, GOVERNOR, MEASURE, POLL};

/// Counties of the state.
pub(super) const COUNTIES: usize = 12;
/// Precincts of a county, at least and at most.
const PRECINCTS: std::ops::RangeInclusive<usize> = 20..=40;
/// Seats of the council.
pub(super) const SEATS: u16 = 3;
/// The middle of the precincts' sizes, and how far they spread.
const REGISTERED_MIDDLE: f64 = 1_400.0;
const REGISTERED_SPREAD: f64 = 0.55;
const SMALLEST: f64 = 120.0;
const LARGEST: f64 = 9_000.0;

const FIRST: [&str; 16] = [
    "Bel", "Cor", "Dun", "Fal", "Gar", "Hol", "Ister", "Kel", "Lor", "Mar", "Nor", "Ost", "Pell", "Quin",
    "Ster", "Vel",
];
const SECOND: [&str; 10] = ["a", "en", "i", "o", "ar", "el", "ing", "um", "ay", "is"];
const PLACE_END: [&str; 10] =
    ["ford", "wick", "mere", "stead", "holm", "brook", "dale", "moor", "haven", "ridge"];
const PERSON_END: [&str; 8] = ["vane", "dell", "by", "rett", "sworth", "mond", "lin", "thorpe"];
const GIVEN: [&str; 12] =
    ["Ada", "Bram", "Cleo", "Dorin", "Elia", "Fenn", "Gisa", "Hale", "Ines", "Joris", "Kaya", "Lev"];

/// A precinct with what decides how it votes.
#[derive(Debug, Clone)]
pub(super) struct Precinct {
    pub(super) unit: UnitId,
    pub(super) county: usize,
    pub(super) registered: u64,
    /// How much more than the state it likes the first party, below 0 the second; its own share and its county's.
    pub(super) lean: f64,
    /// Share of the registered who vote.
    pub(super) turnout: f64,
}

/// The state and what decides how it votes.
pub(super) struct State {
    pub(super) definition: Definition,
    pub(super) counties: Vec<UnitId>,
    pub(super) precincts: Vec<Precinct>,
}

/// Makes up names, each of them once.
struct Names {
    rng: StdRng,
    used: BTreeSet<String>,
}

impl Names {
    fn one(&mut self, make: impl Fn(&mut StdRng) -> String) -> String {
        // There are many more names than places and people; after enough tries a number makes one distinct.
        for _ in 0..100 {
            let name = make(&mut self.rng);
            if self.used.insert(name.clone()) {
                return name;
            }
        }
        let name = format!("{} {}", make(&mut self.rng), self.used.len());
        self.used.insert(name.clone());
        name
    }

    fn place(&mut self) -> String {
        self.one(|rng| format!("{}{}{}", pick(rng, &FIRST), pick(rng, &SECOND), pick(rng, &PLACE_END)))
    }

    fn person(&mut self) -> String {
        self.one(|rng| {
            let (first, second) = (pick(rng, &FIRST), pick(rng, &SECOND));
            format!("{} {first}{second}{}", pick(rng, &GIVEN), pick(rng, &PERSON_END))
        })
    }
}

fn pick<'a>(rng: &mut StdRng, words: &[&'a str]) -> &'a str {
    words[rng.random_range(0..words.len())]
}

impl State {
    pub(super) fn generate(seed: u64) -> State {
        let mut names = Names { rng: StdRng::seed_from_u64(seed), used: BTreeSet::new() };
        let mut rng = StdRng::seed_from_u64(seed ^ 1);
        let state_name = names.place();
        let mut units = vec![unit("state".to_owned(), state_name.clone(), "state", None, None)];
        let mut leans = Vec::new();
        for county in 0..COUNTIES {
            let id = format!("county-{:02}", county + 1);
            units.push(unit(id, format!("{} County", names.place()), "county", Some(UnitId(0)), None));
            leans.push((0.13 * bell(&mut rng), 0.64 + 0.05 * bell(&mut rng)));
        }
        let counties: Vec<UnitId> = (1u32..).map(UnitId).take(COUNTIES).collect();
        let mut precincts = Vec::new();
        for (county, (parent, (lean, turnout))) in counties.iter().zip(leans).enumerate() {
            for precinct in 1..=rng.random_range(PRECINCTS) {
                let registered = lognormal(&mut rng, REGISTERED_MIDDLE, REGISTERED_SPREAD, SMALLEST, LARGEST);
                let id = format!("county-{:02}-{precinct:02}", county + 1);
                precincts.push(Precinct {
                    unit: UnitId(u32::try_from(units.len()).unwrap_or(u32::MAX)),
                    county,
                    registered,
                    lean: (lean + 0.07 * bell(&mut rng)).clamp(-0.35, 0.35),
                    turnout: (turnout + 0.06 * bell(&mut rng)).clamp(0.35, 0.85),
                });
                units.push(unit(id, names.place(), "precinct", Some(*parent), Some(registered)));
            }
        }
        let contests = contests(&mut names, counties[0]);
        let definition = Definition::from(Parts {
            id: "demo-night".to_owned(),
            name: format!("State of {state_name}: a fictional election night"),
            is_test: true,
            partitions: Partitions::default(),
            parties: parties(),
            units,
            contests,
        });
        State { definition, counties, precincts }
    }
}

fn unit(id: String, name: String, kind: &str, parent: Option<UnitId>, registered: Option<u64>) -> Unit {
    Unit { id, name, kind: kind.to_owned(), parent, registered }
}

fn parties() -> Vec<Party> {
    let party = |(id, name, color): (&str, &str, &str)| Party {
        id: id.to_owned(),
        name: name.to_owned(),
        color: Some(color.to_owned()),
    };
    [
        ("harbour", "Harbour Party", "#1f6f8b"),
        ("orchard", "Orchard League", "#b4572a"),
        ("lantern", "Lantern Movement", "#6b4fa0"),
    ]
    .into_iter()
    .map(party)
    .collect()
}

fn selection(id: &str, name: String, party: Option<u16>) -> Selection {
    Selection { id: id.to_owned(), name, party }
}

/// Returns come by how the ballots were cast.
fn by_type() -> Counting {
    let types = CountItemType::ALL.into_iter().filter(|t| *t != CountItemType::Total);
    Counting::Returns { count_types: types.collect() }
}

fn contests(names: &mut Names, capital: UnitId) -> Vec<Contest> {
    let contest = |id: &str, name: &str, kind, unit, selections, counting| Contest {
        id: id.to_owned(),
        name: name.to_owned(),
        kind,
        unit,
        selections,
        counting,
        baseline: None,
    };
    let mut people = |words: &[(&str, Option<u16>)]| -> Vec<Selection> {
        words.iter().map(|(id, party)| selection(id, names.person(), *party)).collect()
    };
    let governor = people(&[("one", Some(0)), ("two", Some(1)), ("three", Some(2)), ("four", None)]);
    let council = people(&[
        ("a", Some(0)),
        ("b", Some(0)),
        ("c", Some(1)),
        ("d", Some(1)),
        ("e", Some(2)),
        ("f", None),
        ("g", None),
    ]);
    let measure = vec![selection("yes", "Yes".to_owned(), None), selection("no", "No".to_owned(), None)];
    let threshold = Threshold { numerator: 3, denominator: 5, exclusive: false };
    let songs = ["Slow Tide", "Paper Lanterns", "The Long Ferry", "Copper Weather", "Nine Small Bells"];
    let songs = ["tide", "lanterns", "ferry", "weather", "bells"]
        .into_iter()
        .zip(songs)
        .map(|(id, name)| selection(id, name.to_owned(), None))
        .collect();
    let open = Voting { opens: None, closes: None, policy: VotePolicy::One, eligibility: Eligibility::Open };
    vec![
        contest(GOVERNOR, "Governor", ContestKind::SingleChoice, UnitId(0), governor, by_type()),
        contest(COUNCIL, "Capital council", ContestKind::NOfM { n: SEATS }, capital, council, by_type()),
        contest(
            MEASURE,
            "Measure 7: the night ferry",
            ContestKind::BallotMeasure { threshold },
            UnitId(0),
            measure,
            by_type(),
        ),
        contest(
            POLL,
            "Which song is the encore?",
            ContestKind::AudiencePoll,
            UnitId(0),
            songs,
            Counting::Votes(open),
        ),
    ]
}
