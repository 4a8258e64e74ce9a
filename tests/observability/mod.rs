//! What is seen from outside: metrics as Prometheus reads them, alerts, dashboards, and traces as a collector gets them.

mod alerts;
mod collector;
mod dashboards;
mod metrics;
mod prometheus;
mod stand;
mod traces;
