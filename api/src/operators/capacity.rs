//! The endpoints of capacity: how many workers are needed, and what happened in a queue over time.

use poem_openapi::{OpenApi, param::Path};
use queue::operator::{demand::Objective, trends::TrendWindow};

use super::{
    CapacityApi, check_name, not_found,
    wire::{
        capacity::{DurationParam, Scale, Trends},
        json,
    },
};
use crate::{
    auth::Viewer,
    problem::{Failure, errors},
    tags::Tag,
    validation::{AllValid, FirstOr, Query},
    wire::{Json, responses},
};

/// The detail of a 404.
const UNKNOWN: &str = "Unknown queue";

responses! {
    /// The workers that each queue needs, and the figures that say so.
    ScaleResponse = 200 Json<Scale>;

    /// The points, oldest first, and the marks.
    TrendsResponse = 200 Json<Trends>;
}

errors! {
    Scaling: [401, 403, 422, 429, 503];
    Finding: [401, 403, 404, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Operators")]
impl CapacityApi {
    /// Compute how many workers are needed
    ///
    /// From the arrivals and durations of the last 15 minutes: at most 80 % of the slots are in use, 99 of 100 jobs start
    /// within `objective`, and all due jobs are run within `drain_in`. The gauge `millrace_workers_needed` is the same
    /// number for the defaults.
    #[oai(path = "/admin/queue/scale", method = "get", operation_id = "compute_scale")]
    async fn scale(
        &self,
        caller: Viewer,
        /// 99 of 100 jobs start within this time after they are due; 30s by default.
        objective: Query<Option<DurationParam>>,
        /// No due job is left after this time; 10m by default, at least 1s.
        drain_in: Query<Option<DurationParam>>,
    ) -> Result<ScaleResponse, Failure<Scaling>> {
        let operator = self.0.read(&caller).await?;
        let default = Objective::default();
        let (wait, drain) = (objective.0, drain_in.0).all_valid()?;
        let objective = Objective {
            wait_seconds: wait.unwrap_or(default.wait_seconds),
            drain_seconds: drain.unwrap_or(default.drain_seconds).max(1.0),
        };
        Ok(ScaleResponse::Ok(json(&operator.scale(&objective).await?)?))
    }

    /// Get the trends of a queue
    ///
    /// Jobs that came in, runs that started, new dead letters, waits and depth: 60 points of a minute, 144 of ten minutes
    /// or 168 of two hours. Marks are releases of workers, pauses, replays and discards.
    #[oai(path = "/admin/queue/queues/:name/trends", method = "get", operation_id = "get_queue_trends")]
    async fn trends(
        &self,
        caller: Viewer,
        /// The name of the queue.
        name: Path<String>,
        /// The time.
        window: Query<FirstOr<TrendWindow>>,
    ) -> Result<TrendsResponse, Failure<Finding>> {
        let operator = self.0.read(&caller).await?;
        let window = window.0?;
        let name = check_name(&name.0, UNKNOWN)?;
        let trends = operator.trends(name, window).await?.ok_or_else(|| not_found(UNKNOWN))?;
        Ok(TrendsResponse::Ok(json(&trends)?))
    }
}
