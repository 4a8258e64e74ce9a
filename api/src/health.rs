//! Whether this process lives, is ready for work, and how it is doing.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
pub use jobs::app::Metrics;
use poem_openapi::{ApiResponse, Object, OpenApi, payload::Payload, registry::MetaSchema};
use serde::Serialize;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    problem::{Fails, Problem, Statuses},
    tags::Tag,
    wire::{Json, Timestamp},
};

/// Says why the system is not ready, when it is not: database unreachable or read-only, schema wrong.
pub type Readiness = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A readiness check that takes longer has failed: those who ask give up sooner or later, and so do we.
const READY_WITHIN: Duration = Duration::from_secs(3);

/// The health endpoints.
#[derive(Clone)]
pub struct HealthApi {
    /// Asks the database.
    pub readiness: Readiness,
    /// Renders the metrics.
    pub metrics: Metrics,
    /// Cancelled when this process is about to stop.
    pub draining: CancellationToken,
    /// `STORAGE_BACKEND`, as it is shown.
    pub storage_backend: &'static str,
}

/// A greeting that says what answers.
#[derive(Object, Serialize)]
pub struct Welcome {
    status: String,
    current_time: Timestamp,
    message: String,
    storage_backend: String,
}

/// A state in one word.
#[derive(Object, Serialize)]
pub struct State {
    status: String,
}

#[derive(ApiResponse)]
enum Greeted {
    /// This process answers.
    #[oai(status = 200)]
    Ok(Json<Welcome>),
}

#[derive(ApiResponse)]
enum Ok200 {
    /// Yes.
    #[oai(status = 200)]
    Ok(Json<State>),
}

#[derive(ApiResponse)]
enum Measured {
    /// All metrics, in Prometheus' text format.
    #[oai(status = 200)]
    Ok(MetricsText),
}

#[derive(Debug)]
struct Alive;

impl Statuses for Alive {
    const ALL: &'static [u16] = &[];
}

#[derive(Debug)]
struct Ready;

impl Statuses for Ready {
    const ALL: &'static [u16] = &[503];
}

#[OpenApi(tag = "Tag::Health")]
impl HealthApi {
    /// Welcome
    #[oai(path = "/", method = "get", operation_id = "welcome")]
    async fn welcome(&self) -> Result<Greeted, Fails<Alive>> {
        let welcome = Welcome {
            status: "HEALTHY".into(),
            current_time: Timestamp(OffsetDateTime::now_utc()),
            message: "Welcome to Millrace!".into(),
            storage_backend: self.storage_backend.into(),
        };
        Ok(Greeted::Ok(Json::new(&welcome)?))
    }

    /// Is the process alive?
    ///
    /// Never asks the database: a restart would not bring it back.
    #[oai(path = "/livez", method = "get", operation_id = "livez")]
    async fn livez(&self) -> Result<Ok200, Fails<Alive>> {
        state("ok")
    }

    /// Is the process ready for requests?
    ///
    /// 200 when the database can be reached and written to and its schema is right, the storage of interest rates could
    /// save something, and the process is not about to stop.
    #[oai(path = "/readyz", method = "get", operation_id = "readyz")]
    async fn readyz(&self) -> Result<Ok200, Fails<Ready>> {
        self.ready().await
    }

    /// Is the process ready for requests? The same as `/readyz`.
    #[oai(path = "/api/v1/ready", method = "get", operation_id = "ready")]
    async fn ready_v1(&self) -> Result<Ok200, Fails<Ready>> {
        self.ready().await
    }

    /// Is the process alive? The same as `/livez`.
    #[oai(path = "/api/v1/health", method = "get", operation_id = "health")]
    async fn health(&self) -> Result<Ok200, Fails<Alive>> {
        state("ok")
    }

    /// Is the process ready for requests? The same as `/readyz`.
    #[oai(path = "/api/v1/health/ready", method = "get", operation_id = "health_ready")]
    async fn health_ready(&self) -> Result<Ok200, Fails<Ready>> {
        self.ready().await
    }

    /// Metrics for Prometheus
    #[oai(path = "/metrics", method = "get", operation_id = "metrics")]
    async fn metrics(&self) -> Result<Measured, Fails<Alive>> {
        Ok(Measured::Ok(MetricsText((self.metrics)().await)))
    }
}

impl HealthApi {
    async fn ready(&self) -> Result<Ok200, Fails<Ready>> {
        if self.draining.is_cancelled() {
            return Err(Problem::unavailable("not ready: this process is stopping").into());
        }
        match tokio::time::timeout(READY_WITHIN, (self.readiness)()).await {
            Ok(Ok(())) => state("ready"),
            Ok(Err(cause)) => Err(Problem::unavailable(format!("not ready: {cause}")).into()),
            Err(_) => Err(Problem::unavailable("not ready: the database did not answer in time").into()),
        }
    }
}

fn state<S>(status: &'static str) -> Result<Ok200, Fails<S>> {
    Ok(Ok200::Ok(Json::new(&State { status: status.into() })?))
}

/// Prometheus' text format.
struct MetricsText(String);

impl Payload for MetricsText {
    const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4";

    fn schema_ref() -> poem_openapi::registry::MetaSchemaRef {
        poem_openapi::registry::MetaSchemaRef::Inline(Box::new(MetaSchema::new("string")))
    }
}

impl poem::IntoResponse for MetricsText {
    fn into_response(self) -> poem::Response {
        poem::Response::builder().content_type(Self::CONTENT_TYPE).body(self.0)
    }
}

#[cfg(test)]
mod tests {
    use poem::{Endpoint, Request, http::StatusCode};

    use super::*;
    use crate::routes::Routes;

    async fn get(path: &str, readiness: Readiness, draining: bool) -> (StatusCode, String) {
        let token = CancellationToken::new();
        if draining {
            token.cancel();
        }
        let api = HealthApi {
            readiness,
            metrics: Arc::new(|| Box::pin(async { "up 1\n".to_owned() })),
            draining: token,
            storage_backend: "postgres",
        };
        let request = Request::builder().uri_str(path).finish();
        let mut response = Routes::new(api, Vec::new()).get_response(request).await;
        (response.status(), response.take_body().into_string().await.unwrap_or_default())
    }

    fn readiness(answer: Result<(), &'static str>) -> Readiness {
        Arc::new(move || Box::pin(async move { answer.map_err(Into::into) }))
    }

    #[tokio::test]
    async fn readiness_asks_and_liveness_does_not() {
        for path in ["/readyz", "/api/v1/ready", "/api/v1/health/ready"] {
            assert_eq!(get(path, readiness(Ok(())), false).await, (StatusCode::OK, "{\"status\":\"ready\"}\n".into()));
            let (status, body) = get(path, readiness(Err("password=hunter2")), false).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(!body.contains("hunter2"), "{body}");
            assert_eq!(get(path, readiness(Ok(())), true).await.0, StatusCode::SERVICE_UNAVAILABLE);
        }
        for path in ["/livez", "/api/v1/health"] {
            let never: Readiness = Arc::new(|| Box::pin(std::future::pending()));
            assert_eq!(get(path, never, true).await, (StatusCode::OK, "{\"status\":\"ok\"}\n".into()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_does_not_answer_is_not_ready() {
        let never: Readiness = Arc::new(|| Box::pin(std::future::pending()));
        assert_eq!(get("/readyz", never, false).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn greets() {
        let (status, body) = get("/", readiness(Ok(())), false).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.starts_with(r#"{"status":"HEALTHY","current_time":"2"#), "{body}");
        assert!(
            body.ends_with("Z\",\"message\":\"Welcome to Millrace!\",\"storage_backend\":\"postgres\"}\n"),
            "{body}"
        );
        assert_eq!(get("/metrics", readiness(Ok(())), false).await.1, "up 1\n");
    }
}
