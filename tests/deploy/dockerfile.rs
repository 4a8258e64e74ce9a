//! The Dockerfiles: lint, and that everything a build needs is copied.

use std::fs;

use super::{read, root, run, tools};
use crate::harness::scratch::Scratch;

#[test]
fn the_linter_has_nothing_against_them() {
    let Some(tools) = tools() else { return };
    for path in ["Dockerfile", "deploy/hardhat/Dockerfile"] {
        let (succeeded, said) = run(tools.program("hadolint").arg(root().join(path)));
        assert!(succeeded && said.is_empty(), "{path}: {said}");
    }
    // It would tell.
    let folder = Scratch::new();
    let planted =
        read("Dockerfile").replace("COPY .sqlx .sqlx", "ADD .sqlx .sqlx").replace("WORKDIR /src", "WORKDIR src");
    fs::write(folder.join("Dockerfile"), planted).unwrap();
    let (succeeded, said) = run(tools.program("hadolint").arg(folder.join("Dockerfile")));
    assert!(!succeeded && said.contains("DL3020") && said.contains("DL3000"), "{said}");
}

/// The sources of its `COPY` instructions from the context, in order.
fn copied(dockerfile: &str) -> Vec<&str> {
    let lines = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"));
    lines.flat_map(|line| line.split(' ').rev().skip(1)).collect()
}

#[test]
fn a_build_gets_every_crate_and_everything_beside_them() {
    let (dockerfile, ignored) = (read("Dockerfile"), read(".dockerignore"));
    let copied = copied(&dockerfile);
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).expect("members");
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.len() >= 4, "{members:?}");
    for member in &members {
        assert!(copied.contains(&&*format!("{member}/Cargo.toml")), "{member}: its manifest, before the code");
        assert!(copied.contains(member), "{member}: its code");
    }
    // Macros read these folders.
    for folder in [".cargo", ".sqlx", "contracts", "migrations"] {
        assert!(copied.contains(&folder), "{folder}");
    }
    for path in &copied {
        assert!(root().join(path).exists(), "{path} is copied and is not there");
        let top = path.split('/').next().expect("a first step");
        assert!(ignored.lines().any(|line| line == format!("!{top}")), ".dockerignore keeps {top} away");
    }
    let programs = ["api", "worker", "millrace"];
    assert!(
        programs.iter().all(|name| dockerfile.contains(&format!("/{name}\""))),
        "one of {programs:?} is left behind"
    );
}

#[test]
fn what_is_secret_or_large_is_never_sent_to_a_builder() {
    let ignored = read(".dockerignore");
    let rules: Vec<_> = ignored.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(rules.first(), Some(&"*"), "everything is left away but what is named");
    for never in [".env", ".git", ".millrace", "target", "tests"] {
        assert!(!rules.contains(&&*format!("!{never}")), "{never}");
    }
}

#[test]
fn the_image_is_of_the_toolchain_that_the_workspace_names() {
    let (dockerfile, manifest) = (read("Dockerfile"), read("Cargo.toml"));
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    assert!(dockerfile.contains(&format!("ARG RUST_IMAGE=rust:{}.", version.trim_matches('"'))), "not {version}");
    // Both of one Debian: a newer libc than the one that it runs on would not do.
    assert!(dockerfile.contains("-slim-trixie\n") && dockerfile.contains("ARG RUNTIME_IMAGE=debian:13."));
}
