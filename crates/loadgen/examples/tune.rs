#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]
use canvass_forecast::Model;
use canvass_loadgen::bench::forecast::*;
fn line(name: &str, s: Score) {
    println!(
        "{name:24} n {:5} cov {:.3} width {:6.2} mae {:5.2} crps {:5.2} IS90 {:6.2} calls {} wrong {}",
        s.cases, s.coverage, s.width, s.error, s.crps, s.interval_score, s.calls, s.wrong
    );
}
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let file = flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap());
    let counties = counties::read(file).unwrap();
    let verbose = std::env::args().nth(2).is_some();
    for pair in pairs(&counties) {
        let t = std::time::Instant::now();
        let mut model = Model::learn(&pair.past).unwrap();
        let env = |n: &str, d: f64| std::env::var(n).ok().and_then(|v| v.parse().ok()).unwrap_or(d);
        model.late.margin = env("LATE", model.late.margin);
        model.late_local.margin = env("LATEL", model.late_local.margin);
        for g in ["size", "lean", "region", "class", "nation", "covariates", "state", "state and class"] {
            if let Some(b) = model.groups.get_mut(g) {
                b.margin = b.margin.max(env(&format!("{}_Y", g.replace(' ', "_")), 0.0));
                b.turnout = b.turnout.max(env(&format!("{}_Z", g.replace(' ', "_")), 0.0));
            }
        }
        model.late.turnout = env("LATEZ", model.late.turnout);
        model.late_local.turnout = env("LATELZ", model.late_local.turnout);
        model.widening = env("WIDE", model.widening);
        println!("== {} learned in {:?}", pair.now, t.elapsed());
        if verbose {
            print!("{model}");
        }
        let updates = updates(&counties, &pair, &model, 2000).unwrap();
        let sec: Vec<f64> = updates.iter().map(|u| u.seconds).collect();
        println!(
            "seconds mean {:.4} max {:.4}",
            sec.iter().sum::<f64>() / sec.len() as f64,
            sec.iter().cloned().fold(0.0, f64::max)
        );
        let states = |f: &dyn Fn(&Update) -> bool| {
            Score::of(updates.iter().filter(|u| f(u)).flat_map(|u| u.states.iter().map(|(_, c)| c)))
        };
        let nation =
            |f: &dyn Fn(&Update) -> bool| Score::of(updates.iter().filter(|u| f(u)).map(|u| &u.nation));
        line("states", states(&|_| true));
        line("nation", nation(&|_| true));
        for s in STAGES {
            line(&format!("states at {s}"), states(&|u| u.stage == s));
        }
        for o in Order::ALL {
            line(&format!("states {}", o.name()), states(&|u| u.order == o));
        }
        for s in STAGES {
            line(&format!("nation at {s}"), nation(&|u| u.stage == s));
        }
        for o in Order::ALL {
            line(&format!("nation {}", o.name()), nation(&|u| u.order == o));
        }
        if verbose {
            for u in &updates {
                println!("{} {} nation {:?}", u.order.name(), u.stage, u.nation);
                for (s, c) in &u.states {
                    if c.call() == Some(false) {
                        println!("   wrong {s} {c:?}");
                    }
                }
            }
        }
    }
}
