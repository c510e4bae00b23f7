//! Looks at the monitors again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use metrics::{Counter, Gauge};
use tokio::time::MissedTickBehavior;

use super::config::{Monitor, Overload, Trigger, Triggered};
use super::{Action, Levels, OVERLOAD};
use crate::runtime::drain::DrainControl;
use crate::telemetry::metrics::{Family, Scope, Stats};

/// `overload.<monitor>.`
struct MonitorStats {
    pressure: Gauge,
    failed_updates: Counter,
    _scope: Scope,
}

/// `overload.<action>.`
struct ActionStats {
    active: Gauge,
    scale_percent: Gauge,
    _scope: Scope,
}

/// `overload.<point>.`
struct PointStats {
    scale_percent: Gauge,
    shed_load_count: Counter,
    _scope: Scope,
}

/// Begins to look, at once and then again and again for as long as the process lives.
pub fn start(overload: Overload, drain: Arc<DrainControl>, stats: &Stats) {
    for (_, monitor) in &overload.monitors {
        if let Monitor::Connections(most) = monitor {
            OVERLOAD.most_connections.store(*most, Relaxed);
        }
    }
    let monitors: Vec<_> = overload
        .monitors
        .iter()
        .map(|(name, _)| {
            let scope = stats.scope(Family::Overload, name);
            MonitorStats {
                pressure: scope.gauge("pressure"),
                failed_updates: scope.counter("failed_updates"),
                _scope: scope,
            }
        })
        .collect();
    let actions: Vec<_> = overload
        .actions
        .iter()
        .map(|action| {
            let scope = stats.scope(Family::Overload, &action.name);
            ActionStats {
                active: scope.gauge("active"),
                scale_percent: scope.gauge("scale_percent"),
                _scope: scope,
            }
        })
        .collect();
    let points: Vec<_> = overload
        .points
        .iter()
        .map(|point| {
            let scope = stats.scope(Family::Overload, &point.name);
            PointStats {
                scale_percent: scope.gauge("scale_percent"),
                shed_load_count: scope.counter("shed_load_count"),
                _scope: scope,
            }
        })
        .collect();
    let mut ticks = tokio::time::interval(overload.refresh);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::spawn(async move {
        let mut pressures = vec![0.0; overload.monitors.len()];
        loop {
            ticks.tick().await;
            for ((pressure, (name, monitor)), stats) in
                pressures.iter_mut().zip(&overload.monitors).zip(&monitors)
            {
                match monitor.pressure(drain.signal().open()) {
                    Ok(now) => *pressure = now,
                    // What was known last still holds.
                    Err(error) => {
                        stats.failed_updates.increment(1);
                        tracing::warn!(monitor = name, "a resource's use is not known: {error}");
                    }
                }
                stats.pressure.set(*pressure * 100.0);
            }
            for (action, stats) in overload.actions.iter().zip(&actions) {
                apply(&OVERLOAD, action, &pressures, stats);
            }
            for (point, stats) in overload.points.iter().zip(&points) {
                let level = level(&point.triggers, &pressures);
                OVERLOAD.set_point(point.action, level);
                stats.scale_percent.set(level * 100.0);
                stats.shed_load_count.absolute(OVERLOAD.shed(point.action));
            }
        }
    });
}

/// The greatest level of all triggers.
fn level(triggers: &[Trigger], pressures: &[f64]) -> f64 {
    let each = triggers.iter();
    each.map(|trigger| trigger.level(pressures[trigger.monitor]))
        .fold(0.0, f64::max)
}

fn apply(levels: &Levels, action: &Triggered<Action>, pressures: &[f64], stats: &ActionStats) {
    let level = level(&action.triggers, pressures);
    levels.set(action.action, level);
    stats.active.set(if level >= 1.0 { 1.0 } else { 0.0 });
    stats.scale_percent.set(level * 100.0);
}
