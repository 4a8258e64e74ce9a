//! Charts of the last 60 minutes, drawn on the server as SVG. Colours come from the stylesheet.

use std::fmt::Write;

use queue::operator::overview::Minute;

use super::format::{Html, number};

/// The size of a chart in its own units.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    width: u32,
    height: u32,
    class: &'static str,
}

/// A chart in a line of a table.
pub(super) const SMALL: Size = Size { width: 120, height: 28, class: "spark" };
/// A chart of a page.
pub(super) const LARGE: Size = Size { width: 600, height: 140, class: "chart" };

/// The minutes without the last one. That is not over: its low counts would look like a fall.
fn full(minutes: &[Minute]) -> &[Minute] {
    minutes.split_last().map_or(minutes, |(_, full)| full)
}

/// The highest value of a chart.
pub(super) fn most(minutes: &[Minute]) -> i64 {
    full(minutes).iter().flat_map(|minute| [minute.came, minute.started, minute.dead]).max().unwrap_or(0)
}

/// Draws the jobs that came in, the runs that started and the new dead letters of each full minute.
// Counts of jobs are far below 2^52.
#[allow(clippy::cast_precision_loss)]
pub(super) fn draw(minutes: &[Minute], size: Size) -> Html {
    let (minutes, most) = (full(minutes), most(minutes));
    let scale = f64::from(size.height - 4) / most.max(1) as f64;
    let step = f64::from(size.width) / minutes.len().saturating_sub(1).max(1) as f64;
    let y = |count: i64| f64::from(size.height) - 2.0 - count as f64 * scale;
    let x = |index: usize| index as f64 * step;
    let line = |class: &str, count: fn(&Minute) -> i64| {
        let mut points = String::new();
        for (index, minute) in minutes.iter().enumerate() {
            let _ = write!(points, "{:.0},{:.1} ", x(index), y(count(minute)));
        }
        format!("<polyline class=\"{class}\" points=\"{}\"/>", points.trim_end())
    };
    let mut bars = String::new();
    for (index, minute) in minutes.iter().enumerate().filter(|(_, minute)| minute.dead > 0) {
        let (bottom, top) = (size.height, y(minute.dead).min(f64::from(size.height) - 5.0));
        let _ = write!(bars, "<path class=\"dead\" d=\"M{:.0},{bottom}V{top:.1}\"/>", x(index));
    }
    let sum = |count: fn(&Minute) -> i64| number(minutes.iter().map(count).sum::<i64>());
    let label = format!(
        "Last 60 min: {} came in, {} runs started, {} died; at most {} a minute",
        sum(|minute| minute.came),
        sum(|minute| minute.started),
        sum(|minute| minute.dead),
        number(most)
    );
    let Size { width, height, class } = size;
    Html(format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{label}\">\
         <title>{label}</title>{bars}{}{}</svg>",
        line("in", |minute| minute.came),
        line("out", |minute| minute.started),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_stays_inside_its_frame_and_says_its_sums() {
        let mut minutes = vec![Minute::default(); 60];
        minutes[58] = Minute { came: 1_000_000, started: 10, dead: 5 };
        let svg = draw(&minutes, SMALL).0;
        assert!(
            svg.contains("Last 60 min: 1,000,000 came in, 10 runs started, 5 died; at most 1,000,000 a minute"),
            "{svg}"
        );
        assert!(svg.contains("120,2.0\"/>") && svg.len() < 2000, "{svg}");
        assert!(draw(&[], LARGE).0.contains("0 came in") && !svg.contains("style="));
    }
}
