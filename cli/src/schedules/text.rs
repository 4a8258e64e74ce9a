//! Schedules and fires as tables.

use queue::schedule::{FireOutcome, Fired, Overview};

use crate::output::{
    Screen, Style, format_duration, format_time, one_line,
    table::{Cell, Column, render},
};

/// All schedules, then the next times and the last fires of each.
pub(super) fn overview(all: &[Overview], screen: Screen) -> String {
    const COLUMNS: [Column; 6] = [
        Column::fixed("SCHEDULE"),
        Column::fixed("CRON"),
        Column::optional("CATCH UP", 2),
        Column::optional("LAST FIRE", 1),
        Column::optional("OUTCOME", 3),
        Column::fixed("NEXT"),
    ];
    let rows = all.iter().map(|schedule| {
        let last = schedule.latest.first();
        vec![
            schedule.name.into(),
            one_line(&schedule.cron, 40).into(),
            schedule.catch_up.as_str().into(),
            last.map_or_else(|| "-".into(), |fire| format_time(fire.fire_time)).into(),
            last.map_or_else(|| "-".into(), outcome),
            schedule.next.map_or_else(|| "-".into(), format_time).into(),
        ]
    });
    let mut text = render(&COLUMNS, rows, screen);
    for schedule in all {
        text.push_str(&format!("\nNext times of {}\n", schedule.name));
        for next in &schedule.upcoming {
            let skipped = next.skipped_by.as_ref().map(|by| format!("  skipped by {}", one_line(by, 60)));
            text.push_str(&format!("  {}{}\n", format_time(next.time), skipped.unwrap_or_default()));
        }
        text.push_str(&format!("\nLast fires of {}, newest first\n", schedule.name));
        let latest = fires(&schedule.latest, screen);
        text.push_str(if schedule.latest.is_empty() { "It has not fired in the last 90 days.\n" } else { &latest });
    }
    text
}

/// Fires, newest first.
pub(super) fn fires(fires: &[Fired], screen: Screen) -> String {
    const COLUMNS: [Column; 8] = [
        Column::fixed("SCHEDULE"),
        Column::fixed("FIRE TIME"),
        Column::fixed("KIND"),
        Column::optional("LATE", 3),
        Column::optional("JOBS", 2),
        Column::fixed("OUTCOME"),
        Column::optional("BY", 1),
        Column::optional("PASSED OVER", 4),
    ];
    let rows = fires.iter().map(|fire| {
        let late = (fire.fired_at - fire.fire_time).as_seconds_f64();
        vec![
            fire.schedule.as_str().into(),
            format_time(fire.fire_time).into(),
            fire.kind.replace('_', " ").into(),
            // A fire that an operator skips is recorded before its time.
            if late < 0.0 { "-".into() } else { format_duration(late).into() },
            fire.jobs.to_string().into(),
            outcome(fire),
            fire.fired_by.as_deref().unwrap_or("-").into(),
            fire.passed_over.to_string().into(),
        ]
    });
    render(&COLUMNS, rows, screen)
}

fn outcome(fire: &Fired) -> Cell {
    let (text, states) = (fire.outcome.as_str(), fire.states);
    match fire.outcome {
        FireOutcome::Dead => Cell::new(&format!("{} {text}", states.dead), Style::Bad),
        FireOutcome::Retried => Cell::new(&format!("{} {text}", states.retried), Style::Warning),
        FireOutcome::Done => Cell::new(text, Style::Good),
        FireOutcome::NoJobs | FireOutcome::NotKnown | FireOutcome::Cancelled => Cell::new(text, Style::Faint),
        FireOutcome::Running | FireOutcome::Waiting => text.into(),
    }
}
