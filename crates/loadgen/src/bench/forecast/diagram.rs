//! Reliability diagrams: how often intervals held the truth, against how often they claim to.

use std::fmt::Write as _;

use super::{Case, PairReport};

/// What intervals claim, as shares.
pub(super) const LEVELS: [f64; 11] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99];
/// Size of the square that the diagram is drawn in, and where it begins.
const SIDE: f64 = 300.0;
const EDGE: f64 = 50.0;

/// What was claimed, and how often it was so; only levels that are known.
pub(super) fn reliability<'a>(cases: impl Iterator<Item = &'a Case> + Clone) -> Vec<(f64, f64)> {
    let of = |level: &f64| {
        let known: Vec<bool> = cases.clone().filter_map(|case| case.within(*level)).collect();
        let held = known.iter().filter(|held| **held).count() as f64;
        (!known.is_empty()).then(|| (*level, held / known.len() as f64))
    };
    LEVELS.iter().filter_map(of).collect()
}

/// The diagram of one election, as SVG: a line a side for Canvass, marks for elex-model.
pub(super) fn svg(pair: &PairReport) -> String {
    let states = |of: &'_ [super::Update]| {
        let cases: Vec<Case> = of.iter().flat_map(|u| u.states.iter().map(|(_, case)| *case)).collect();
        reliability(cases.iter())
    };
    let (ours, theirs) = (states(&pair.ours), states(&pair.theirs));
    let x = |share: f64| EDGE + SIDE * share;
    let y = |share: f64| EDGE + SIDE * (1.0 - share);
    let mut svg = String::new();
    let size = SIDE + 2.0 * EDGE;
    // Writing into a string cannot fail.
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = svg.write_fmt(text);
        svg.push('\n');
    };
    line(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" role="img" aria-label="How often intervals held the truth in {}" font-family="sans-serif" font-size="12">"#,
        pair.year
    ));
    line(format_args!("<rect width=\"{size}\" height=\"{size}\" fill=\"#fff\"/>"));
    line(format_args!(
        "<text x=\"{EDGE}\" y=\"25\" font-size=\"14\">States, {}: held against claimed</text>",
        pair.year
    ));
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (at_x, at_y, percent) = (x(tick), y(tick), tick * 100.0);
        let (low, high) = (y(0.0), y(1.0));
        line(format_args!(
            "<path d=\"M{at_x} {low}V{high}M{} {at_y}H{}\" stroke=\"#ddd\" fill=\"none\"/>",
            x(0.0),
            x(1.0)
        ));
        line(format_args!("<text x=\"{at_x}\" y=\"{}\" text-anchor=\"middle\">{percent}</text>", low + 16.0));
        line(format_args!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{percent}</text>",
            EDGE - 6.0,
            at_y + 4.0
        ));
    }
    line(format_args!(
        "<path d=\"M{} {}L{} {}\" stroke=\"#666\" stroke-dasharray=\"4 4\"/>",
        x(0.0),
        y(0.0),
        x(1.0),
        y(1.0)
    ));
    let points: Vec<String> =
        ours.iter().map(|(claimed, held)| format!("{:.1},{:.1}", x(*claimed), y(*held))).collect();
    line(format_args!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"2\"/>",
        points.join(" ")
    ));
    for (claimed, held) in &ours {
        line(format_args!(
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"#1f5fa8\"/>",
            x(*claimed),
            y(*held)
        ));
    }
    for (claimed, held) in &theirs {
        let (left, top) = (x(*claimed) - 4.0, y(*held) - 4.0);
        line(format_args!(
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"8\" height=\"8\" fill=\"none\" stroke=\"#b3541e\" stroke-width=\"2\"/>"
        ));
    }
    let low = y(0.08);
    line(format_args!(
        "<text x=\"{}\" y=\"{low}\" text-anchor=\"end\">line: Canvass; squares: elex-model</text>",
        x(0.98)
    ));
    line(format_args!("</svg>"));
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_that_are_right_as_often_as_they_claim_lie_on_the_diagonal() {
        let draws: Vec<f64> = (0..1_000).map(|i| f64::from(i) / 1_000.0 - 0.5).collect();
        let cases: Vec<Case> =
            (0..200).map(|i| Case::of(draws.clone(), (f64::from(i) + 0.5) / 200.0 - 0.5)).collect();
        let found = reliability(cases.iter());
        assert_eq!(found.len(), LEVELS.len());
        assert!(found.iter().all(|(claimed, held)| (claimed - held).abs() < 0.01), "{found:?}");
    }
}
