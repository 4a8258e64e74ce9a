//! Health endpoints: liveness, readiness, metrics and the welcome message.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use jobs::app::Metrics;
use poem_openapi::{Object, OpenApi, payload::Payload, registry::MetaSchema};
use serde::Serialize;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    problem::{Failure, Problem, errors},
    tags::Tag,
    wire::{Json, Timestamp, responses},
};

/// Checks readiness. The error is the reason: the database is unreachable or read-only, or its schema is wrong.
pub type Readiness = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A readiness check that takes longer counts as failed. Monitoring systems have time limits as well.
const READINESS_TIMEOUT: Duration = Duration::from_secs(3);

/// The health endpoints.
#[derive(Clone)]
pub struct HealthApi {
    /// Checks the database and the storage of interest rates.
    readiness: Readiness,
    metrics: Metrics,
    /// Cancelled when this process starts to drain.
    draining: CancellationToken,
    /// The name of the `STORAGE_BACKEND`.
    storage_backend: &'static str,
}

/// A welcome message with the name of the service.
#[derive(Object, Serialize)]
pub struct Welcome {
    status: String,
    current_time: Timestamp,
    message: String,
    storage_backend: String,
}

/// A health status in one word.
#[derive(Object, Serialize)]
#[oai(rename = "State")] // The schema's name in published documents.
pub struct HealthStatus {
    status: String,
}

responses! {
    /// The process is running.
    WelcomeResponse = 200 Json<Welcome>;

    /// Yes.
    StatusResponse = 200 Json<HealthStatus>;

    /// All metrics, in Prometheus' text format.
    MetricsResponse = 200 MetricsText;
}

errors! {
    InternalOnly: [];
    NotReady: [503];
}

#[OpenApi(tag = "Tag::Health")]
impl HealthApi {
    /// Welcome
    #[oai(path = "/", method = "get", operation_id = "welcome")]
    async fn welcome(&self) -> Result<WelcomeResponse, Failure<InternalOnly>> {
        let welcome = Welcome {
            status: "HEALTHY".into(),
            current_time: Timestamp(OffsetDateTime::now_utc()),
            message: "Welcome to Millrace!".into(),
            storage_backend: self.storage_backend.into(),
        };
        Ok(WelcomeResponse::Ok(Json::new(&welcome)?))
    }

    /// Is the process alive?
    ///
    /// Does not check the database, because a restart of this process would not repair it.
    #[oai(path = "/livez", method = "get", operation_id = "livez")]
    async fn livez(&self) -> Result<StatusResponse, Failure<InternalOnly>> {
        status_response("ok")
    }

    /// Is the process ready for requests?
    ///
    /// 200 when the database can be reached and written to and its schema is right, the storage of interest rates can
    /// save a rate, and the process is not stopping.
    #[oai(path = "/readyz", method = "get", operation_id = "readyz")]
    async fn readyz(&self) -> Result<StatusResponse, Failure<NotReady>> {
        self.ready().await
    }

    /// Is the process ready for requests? The same as `/readyz`.
    #[oai(path = "/api/v1/ready", method = "get", operation_id = "ready")]
    async fn ready_v1(&self) -> Result<StatusResponse, Failure<NotReady>> {
        self.ready().await
    }

    /// Is the process alive? The same as `/livez`.
    #[oai(path = "/api/v1/health", method = "get", operation_id = "health")]
    async fn health(&self) -> Result<StatusResponse, Failure<InternalOnly>> {
        status_response("ok")
    }

    /// Is the process ready for requests? The same as `/readyz`.
    #[oai(path = "/api/v1/health/ready", method = "get", operation_id = "health_ready")]
    async fn health_ready(&self) -> Result<StatusResponse, Failure<NotReady>> {
        self.ready().await
    }

    /// Metrics for Prometheus
    #[oai(path = "/metrics", method = "get", operation_id = "metrics")]
    async fn metrics(&self) -> Result<MetricsResponse, Failure<InternalOnly>> {
        Ok(MetricsResponse::Ok(MetricsText((self.metrics)().await)))
    }
}

impl HealthApi {
    pub(crate) fn new(context: &Context<'_>) -> Self {
        let app = context.app.clone();
        let readiness: Readiness = Arc::new(move || {
            let app = app.clone();
            async move { tokio::try_join!(app.ready(), app.rates.ready()).map(drop) }.boxed()
        });
        let (metrics, draining) = (context.metrics.clone(), context.draining.clone());
        Self { readiness, metrics, draining, storage_backend: context.app.rates.backend() }
    }

    async fn ready(&self) -> Result<StatusResponse, Failure<NotReady>> {
        if self.draining.is_cancelled() {
            return Err(Problem::unavailable("not ready: this process is stopping").into());
        }
        match tokio::time::timeout(READINESS_TIMEOUT, (self.readiness)()).await {
            Ok(Ok(())) => status_response("ready"),
            Ok(Err(cause)) => Err(Problem::unavailable(format!("not ready: {cause}")).into()),
            Err(_) => Err(Problem::unavailable("not ready: the database did not respond in time").into()),
        }
    }
}

fn status_response<S>(status: &'static str) -> Result<StatusResponse, Failure<S>> {
    Ok(StatusResponse::Ok(Json::new(&HealthStatus { status: status.into() })?))
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

    fn readiness(result: Result<(), &'static str>) -> Readiness {
        Arc::new(move || Box::pin(async move { result.map_err(Into::into) }))
    }

    #[tokio::test]
    async fn readiness_checks_the_database_and_liveness_does_not() {
        for path in ["/readyz", "/api/v1/ready", "/api/v1/health/ready"] {
            assert_eq!(get(path, readiness(Ok(())), false).await, (StatusCode::OK, "{\"status\":\"ready\"}\n".into()));
            let (status, body) = get(path, readiness(Err("password=hunter2")), false).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(!body.contains("hunter2"), "{body}");
            assert_eq!(get(path, readiness(Ok(())), true).await.0, StatusCode::SERVICE_UNAVAILABLE);
        }
        for path in ["/livez", "/api/v1/health"] {
            let pending: Readiness = Arc::new(|| Box::pin(std::future::pending()));
            assert_eq!(get(path, pending, true).await, (StatusCode::OK, "{\"status\":\"ok\"}\n".into()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_fails_when_the_database_does_not_respond() {
        let pending: Readiness = Arc::new(|| Box::pin(std::future::pending()));
        assert_eq!(get("/readyz", pending, false).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn welcome_and_metrics_respond() {
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
