//! The split of an HTTPRoute, counted, changed while calls flow, and counted again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::interrupt::Interrupt;
use super::stage::Stage;

/// How many calls a count has.
const CALLS: u32 = 400;
/// How far a count may be from the route's weight, in percent: six standard deviations at half
/// and half, so that chance alone does not fail the demo.
const TOLERANCE: f64 = 15.0;
/// How long an edited route may take to be in force.
const APPLY: Duration = Duration::from_secs(10);
/// How many calls in a row tell what is in force.
const WINDOW: u32 = 60;

pub(super) fn show(stage: &Stage, interrupt: &Interrupt) -> Result<()> {
    let mut client = stage.browse()?;
    let mut first_version = |calls: u32| -> Result<f64> {
        let mut count = 0;
        for _ in 0..calls {
            interrupt.check()?;
            let seen = stage.ask(&mut client, "/")?;
            let server = seen["called"]["server"].as_str().context("no name")?;
            count += u32::from(server == "reviews-v1");
        }
        Ok(f64::from(count) * 100.0 / f64::from(calls))
    };
    let mut count = |share: u32| -> Result<()> {
        let counted = first_version(CALLS)?;
        println!(
            "    {share}/{}: of {CALLS} calls reviews-v1 had {counted:.1} %, reviews-v2 {:.1} %",
            100 - share,
            100.0 - counted
        );
        ensure!(
            (counted - f64::from(share)).abs() <= TOLERANCE,
            "reviews-v1 had {counted:.1} % instead of {share} %"
        );
        Ok(())
    };
    count(90)?;
    stage.route(50)?;
    let edited = Instant::now();
    println!("    edited {} to 50/50", stage.route_file().display());
    let mut client = stage.browse()?;
    loop {
        interrupt.check()?;
        let mut second = 0;
        for _ in 0..WINDOW {
            let seen = stage.ask(&mut client, "/")?;
            second += u32::from(seen["called"]["server"] == "reviews-v2");
        }
        // A third is more than ten of a hundred would ever give, and less than the half.
        if second >= WINDOW / 3 {
            break;
        }
        ensure!(
            edited.elapsed() < APPLY,
            "the edited route is not in force after {APPLY:?}"
        );
    }
    println!(
        "    in force after {:.1} s, with no call lost",
        edited.elapsed().as_secs_f64()
    );
    count(50)
}
