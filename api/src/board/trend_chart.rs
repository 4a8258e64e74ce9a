//! Charts of trends, drawn on the server as SVG, with a vertical line for each mark. Colours come from the stylesheet.

use std::fmt::Write;

use queue::operator::trends::Trends;

use super::format::Html;

const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 140.0;

/// A line of a chart, one value for each point of time. Where a value is not known, the line has a gap.
pub(super) struct Line {
    pub class: &'static str,
    pub name: &'static str,
    pub values: Vec<Option<f64>>,
}

/// Draws lines over the points of trends. `scale` says what the highest value is.
// There are at most 168 points.
#[allow(clippy::cast_precision_loss)]
pub(super) fn draw(lines: &[Line], trends: &Trends, scale: impl Fn(f64) -> String) -> Html {
    let most = lines.iter().flat_map(|line| line.values.iter().flatten()).copied().fold(0.0, f64::max);
    let step = WIDTH / trends.points.len().saturating_sub(1).max(1) as f64;
    let y = |value: f64| HEIGHT - 2.0 - value / most.max(f64::MIN_POSITIVE) * (HEIGHT - 4.0);
    let mut shapes = String::new();
    for mark in &trends.marks {
        let x = position(trends, mark.at) * WIDTH;
        // Writing to a String never fails.
        let _ = write!(shapes, "<path class=\"mark {}\" d=\"M{x:.1},0V{HEIGHT:.0}\"/>", class(&mark.kind));
    }
    for line in lines {
        for run in line.values.iter().enumerate().collect::<Vec<_>>().split(|(_, value)| value.is_none()) {
            let points = run.iter().filter_map(|(index, value)| Some((*index as f64 * step, y((**value)?))));
            let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            // A single point is a line of its own length, so that it is seen.
            let points = if points.len() == 1 { [points.clone(), points].concat() } else { points };
            if !points.is_empty() {
                let _ = write!(shapes, "<polyline class=\"{}\" points=\"{}\"/>", line.class, points.join(" "));
            }
        }
    }
    let names: Vec<&str> = lines.iter().map(|line| line.name).collect();
    let highest = scale(most);
    let label = format!("{}: {highest}", names.join(", "));
    Html(format!(
        "<p class=\"legend\">{highest}</p>\
         <svg class=\"chart\" viewBox=\"0 0 {WIDTH:.0} {HEIGHT:.0}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{label}\">\
         <title>{label}</title>{shapes}</svg>"
    ))
}

/// Where a time is on the chart, from 0 to 1.
fn position(trends: &Trends, at: time::OffsetDateTime) -> f64 {
    let (Some(first), Some(last)) = (trends.points.first(), trends.points.last()) else { return 0.0 };
    let length = (last.at - first.at).as_seconds_f64().max(1.0);
    ((at - first.at).as_seconds_f64() / length).clamp(0.0, 1.0)
}

/// The class of a mark, from a closed list: no text of the database is written into the page here.
fn class(kind: &str) -> &'static str {
    match kind {
        "release" => "release",
        "pause" | "resume" => "pause",
        _ => "replay",
    }
}

#[cfg(test)]
mod tests {
    use queue::operator::trends::{Mark, TrendPoint};
    use time::{Duration, macros::datetime};

    use super::*;

    #[test]
    fn a_chart_has_gaps_and_marks_and_stays_inside_its_frame() {
        let start = datetime!(2026-11-28 12:00 UTC);
        let point = |number: i64| TrendPoint {
            at: start + Duration::minutes(number),
            came: number,
            started: 0,
            dead: 0,
            wait_p99_seconds: None,
            depth: 0,
        };
        let mark = |minutes, kind: &str| Mark {
            at: start + Duration::minutes(minutes),
            kind: kind.into(),
            text: "<script>".into(),
        };
        let trends = Trends {
            queue: "q".into(),
            window: "1h",
            step_seconds: 60,
            depth_is: queue::status::DepthIs::Exact,
            points: (0..5).map(point).collect(),
            marks: vec![mark(2, "release"), mark(9, "pause")],
        };
        let values = vec![Some(0.0), Some(8.0), None, Some(4.0), None];
        let svg = draw(&[Line { class: "in", name: "came in", values }], &trends, |most| format!("at most {most}")).0;
        assert!(svg.contains("aria-label=\"came in: at most 8\""), "{svg}");
        assert!(
            svg.contains("points=\"0.0,138.0 150.0,2.0\"/>") && svg.contains("points=\"450.0,70.0 450.0,70.0\"/>"),
            "{svg}"
        );
        assert!(
            svg.contains("class=\"mark release\" d=\"M300.0,0V140\"")
                && svg.contains("class=\"mark pause\" d=\"M600.0,"),
            "{svg}"
        );
        assert!(!svg.contains("script"), "{svg}");
        let empty = Trends { points: Vec::new(), marks: Vec::new(), ..trends };
        assert!(draw(&[], &empty, |_| "nothing".into()).0.ends_with("</svg>"));
    }
}
