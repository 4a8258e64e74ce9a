//! What happened in a queue over an hour, a day or two weeks, with marks for releases, pauses and replays.

use serde::Serialize;
use time::OffsetDateTime;

use super::Operator;
use crate::{
    ReadTime,
    counts::quantile,
    status::DepthIs,
    store::operator::trends::{self as sql, MarkRow, PointRow},
};
use runtime::error::Error;

/// The time of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrendWindow {
    /// 60 points of a minute.
    Hour,
    /// 144 points of ten minutes.
    Day,
    /// 168 points of two hours.
    TwoWeeks,
}

impl TrendWindow {
    /// All, shortest first.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::TwoWeeks];

    /// The name, as in `--window`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::TwoWeeks => "14d",
        }
    }

    /// Finds the window of a name.
    ///
    /// # Errors
    /// When no window has this name. The text lists the names.
    pub fn parse(name: &str) -> Result<Self, String> {
        let window = Self::ALL.into_iter().find(|window| window.as_str() == name);
        window.ok_or_else(|| "must be 1h, 24h or 14d".into())
    }

    /// The length of a point in seconds.
    fn step_seconds(self) -> u32 {
        match self {
            Self::Hour => 60,
            Self::Day => 600,
            Self::TwoWeeks => 7200,
        }
    }

    fn points(self) -> u32 {
        match self {
            Self::Hour => 60,
            Self::Day => 144,
            Self::TwoWeeks => 168,
        }
    }
}

/// What happened in a queue.
#[derive(Debug, Clone, Serialize)]
pub struct Trends {
    pub queue: String,
    /// `1h`, `24h` or `14d`.
    pub window: &'static str,
    /// The length of a point.
    pub step_seconds: u32,
    /// Whether the present depth, from which the others are computed, is counted or estimated.
    pub depth_is: DepthIs,
    /// Oldest first. The last point is not over yet.
    pub points: Vec<TrendPoint>,
    /// Releases, pauses, replays and discards in this time, oldest first.
    pub marks: Vec<Mark>,
}

/// What happened in a queue in one step of time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrendPoint {
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Jobs that were enqueued, retried or snoozed.
    pub came: i64,
    /// Runs that started.
    pub started: i64,
    /// New dead letters.
    pub dead: i64,
    /// 99 of 100 runs started at most so long after they were due; `null` without runs, and above five minutes.
    pub wait_p99_seconds: Option<f64>,
    /// Waiting and running jobs at its end: those of now, less what was enqueued since, and more what ended since.
    pub depth: i64,
}

/// Something that may explain a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mark {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// `release`, `pause`, `resume`, `replay` or `discard`.
    pub kind: String,
    /// A sentence.
    pub text: String,
}

impl Operator {
    /// Reads what happened in a queue; `None` if it has no job, no worker and no pause, and nothing happened in it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn trends(&self, queue: &str, window: TrendWindow) -> Result<Option<Trends>, Error> {
        let (step, count) = (window.step_seconds(), window.points());
        let rows = sql::points(&self.pool, queue, step, count).await?;
        let status = self.queue(queue).await?;
        if status.is_none() && rows.iter().all(|row| row.enqueued == 0 && row.started == 0) {
            return Ok(None);
        }
        let marks = sql::marks(&self.pool, queue, step, count).await?;
        let present = status.as_ref().map_or(0, |status| status.waiting + status.running);
        Ok(Some(Trends {
            queue: queue.to_owned(),
            window: window.as_str(),
            step_seconds: step,
            depth_is: status.map_or(DepthIs::Exact, |status| status.depth_is),
            points: points(rows, present),
            marks: marks.into_iter().map(Mark::from).collect(),
        }))
    }
}

/// The points, with the depth computed backwards from the present one.
fn points(rows: Vec<PointRow>, present: i64) -> Vec<TrendPoint> {
    let mut depth = present;
    let mut points: Vec<TrendPoint> = rows
        .into_iter()
        .rev()
        .map(|row| {
            let point = TrendPoint {
                at: row.at.into(),
                came: row.enqueued + row.again,
                started: row.started,
                dead: row.dead,
                wait_p99_seconds: quantile(&row.waits, 0.99).filter(|wait| wait.is_finite()),
                // Counts arrive some seconds late.
                depth: depth.max(0),
            };
            depth += row.gone - row.enqueued;
            point
        })
        .collect();
    points.reverse();
    points
}

impl From<MarkRow> for Mark {
    fn from(MarkRow { at, kind, actor, text, count }: MarkRow) -> Self {
        let at = ReadTime::into(at);
        let text = match (kind.as_str(), actor) {
            ("release", _) => format!("release {text}"),
            ("replay", Some(actor)) => format!("{actor} replays {count} dead letters: {text}"),
            ("discard", Some(actor)) => format!("{actor} discards {count} dead letters: {text}"),
            (kind, Some(actor)) => format!("{kind}d by {actor}: {text}"),
            (kind, None) => format!("{kind}d: {text}"),
        };
        Self { at, kind, text }
    }
}
