//! What is seen from outside: metrics as Prometheus reads them, alerts, dashboards.

mod alerts;
mod dashboards;
mod metrics;
mod prometheus;
mod stand;
//! What can be seen of Millrace from outside.

mod collector;
mod traces;
