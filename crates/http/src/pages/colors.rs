//! Colours of the parties as a style sheet, so that pages need no inline style.
//!
//! A party's colour is shifted towards black on light pages and towards white on dark ones until it stands
//! out. Colour is never the only sign of anything.

use std::fmt::Write;

use canvass_election::Definition;

type Rgb = [u32; 3];

const LIGHT: Rgb = [255, 255, 255];
const DARK: Rgb = [27, 30, 36];
const BLACK: Rgb = [0, 0, 0];

/// The class that colours a selection: its party's, or one by its position.
pub(super) fn class(definition: &Definition, party: Option<u16>, position: usize) -> String {
    let colored = |p: &u16| definition.parties.get(usize::from(*p)).is_some_and(|p| p.color.is_some());
    match party.filter(colored) {
        Some(party) => format!("party-{party}"),
        None => format!("hue-{}", position % 8),
    }
}

/// The style sheet: one class for each party with a colour.
pub(super) fn sheet(definition: &Definition) -> String {
    let (mut light, mut dark) = (String::new(), String::new());
    for (i, party) in definition.parties.iter().enumerate() {
        let Some(color) = party.color.as_deref().and_then(parse) else { continue };
        for (sheet, page, towards) in [(&mut light, LIGHT, BLACK), (&mut dark, DARK, LIGHT)] {
            let [r, g, b] = standing_out(color, page, towards);
            // Writing to a text cannot fail.
            let _ = write!(sheet, ".party-{i}{{--hue:#{r:02x}{g:02x}{b:02x}}}");
        }
    }
    format!("{light}\n@media screen and (prefers-color-scheme:dark){{{dark}}}\n")
}

fn parse(color: &str) -> Option<Rgb> {
    let number = u32::from_str_radix(color.strip_prefix('#')?, 16).ok()?;
    Some([number >> 16 & 255, number >> 8 & 255, number & 255])
}

/// The colour, mixed with `towards` as little as it takes for a contrast of 3 to 1 against the page.
fn standing_out(color: Rgb, page: Rgb, towards: Rgb) -> Rgb {
    let mixed = |k: u32| [0, 1, 2].map(|i| (color[i] * (10 - k) + towards[i] * k) / 10);
    (0..10).map(mixed).find(|c| stands_out(*c, page)).unwrap_or(towards)
}

/// Whether the contrast is above 3 to 1, by WCAG's formula with a square for its curve.
fn stands_out(a: Rgb, b: Rgb) -> bool {
    let light = |c: Rgb| (2_126 * c[0] * c[0] + 7_152 * c[1] * c[1] + 722 * c[2] * c[2]) / 10_000 + 3_251;
    let (a, b) = (light(a), light(b));
    a.max(b) * 10 >= a.min(b) * 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_stand_out_on_their_page() {
        for color in ["#ffff00", "#000000", "#ffffff", "#00205b", "#1a5fb4"] {
            let color = parse(color).unwrap();
            assert!(stands_out(standing_out(color, LIGHT, BLACK), LIGHT), "{color:?}");
            assert!(stands_out(standing_out(color, DARK, LIGHT), DARK), "{color:?}");
        }
        assert_eq!(standing_out([26, 95, 180], LIGHT, BLACK), [26, 95, 180], "a good colour stays as it is");
    }
}
