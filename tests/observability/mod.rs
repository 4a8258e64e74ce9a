//! End-to-end tests of metrics, alerts, dashboards and traces, with a real Prometheus and a fake trace collector.

mod alerts;
mod collector;
mod dashboards;
mod metrics;
mod monitored_system;
mod prometheus;
mod traces;
