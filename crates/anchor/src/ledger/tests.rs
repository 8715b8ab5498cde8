use super::*;

#[test]
fn fees_rise_by_a_quarter_and_never_out_of_proportion() {
    let market = Fees { tip: 10, max: 100 };
    let raised = Fees { tip: 10, max: 100 }.raised(market);
    assert_eq!(raised, Some(Fees { tip: 13, max: 125 }));
    // No less than the market asks.
    assert_eq!(Fees { tip: 1, max: 10 }.raised(market), Some(market));
    assert_eq!(Fees { tip: 30, max: 320 }.raised(market), Some(Fees { tip: 38, max: 400 }));
    assert_eq!(Fees { tip: 30, max: 321 }.raised(market), None);
    // Nodes take no less than a tenth more for a replacement.
    assert_eq!(Fees { tip: 0, max: 1 }.raised(market), Some(market));
    let little = Fees { tip: 1, max: 1 }.raised(Fees { tip: 1, max: 1 }).unwrap();
    assert_eq!(little, Fees { tip: 2, max: 2 });
}
