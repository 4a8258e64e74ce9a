//! What is seen from outside: metrics as Prometheus reads them, alerts, dashboards.

mod alerts;
mod dashboards;
mod metrics;
mod prometheus;
mod stand;
