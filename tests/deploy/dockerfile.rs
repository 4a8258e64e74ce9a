//! The Dockerfiles: they pass the linter, and copy everything that a build needs.

use std::fs;

use super::{read, root, run, tools};
use crate::harness::scratch::Scratch;

#[test]
fn dockerfiles_pass_the_linter() {
    let Some(tools) = tools() else { return };
    for path in ["Dockerfile", "deploy/hardhat/Dockerfile", ".ci/containers/stand-ins/Dockerfile"] {
        let (succeeded, output) = run(tools.program("hadolint").arg(root().join(path)));
        assert!(succeeded && output.is_empty(), "{path}: {output}");
    }
    // The linter reports planted mistakes.
    let folder = Scratch::new();
    let planted =
        read("Dockerfile").replace("COPY .sqlx .sqlx", "ADD .sqlx .sqlx").replace("WORKDIR /src", "WORKDIR src");
    fs::write(folder.join("Dockerfile"), planted).unwrap();
    let (succeeded, output) = run(tools.program("hadolint").arg(folder.join("Dockerfile")));
    assert!(!succeeded && output.contains("DL3020") && output.contains("DL3000"), "{output}");
}

/// The sources of the `COPY` instructions from the build context, in order.
fn copied(dockerfile: &str) -> Vec<&str> {
    let lines = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"));
    lines.flat_map(|line| line.split(' ').rev().skip(1)).collect()
}

#[test]
fn a_build_copies_every_crate_and_folder_it_needs() {
    let (dockerfile, ignored) = (read("Dockerfile"), read(".dockerignore"));
    let copied = copied(&dockerfile);
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).expect("members");
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.len() >= 4, "{members:?}");
    for member in &members {
        assert!(copied.contains(&&*format!("{member}/Cargo.toml")), "{member}: its manifest, before the code");
        let folder = member.split('/').next().expect("a first step");
        assert!(copied.contains(&folder), "{member}: its code");
    }
    // Macros read these folders.
    for folder in [".cargo", ".sqlx", "contracts", "migrations"] {
        assert!(copied.contains(&folder), "{folder}");
    }
    for path in &copied {
        assert!(root().join(path).exists(), "{path} is copied and does not exist");
        let top = path.split('/').next().expect("a first step");
        assert!(ignored.lines().any(|line| line == format!("!{top}")), ".dockerignore excludes {top}");
    }
    let programs = ["api", "worker", "millrace"];
    assert!(
        programs.iter().all(|name| dockerfile.contains(&format!("/{name}\""))),
        "one of {programs:?} is not copied to the image"
    );
}

#[test]
fn secrets_and_large_folders_are_not_in_the_build_context() {
    let ignored = read(".dockerignore");
    let rules: Vec<_> = ignored.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(rules.first(), Some(&"*"), "everything is excluded by default");
    for never in [".env", ".git", ".millrace", "target", "tests"] {
        assert!(!rules.contains(&&*format!("!{never}")), "{never}");
    }
}

#[test]
fn the_rust_image_has_the_version_of_the_workspace() {
    let (dockerfile, manifest) = (read("Dockerfile"), read("Cargo.toml"));
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    assert!(
        dockerfile.contains(&format!("ARG RUST_IMAGE=rust:{}.", version.trim_matches('"'))),
        "the version is not {version}"
    );
    // Both images use the same Debian: a program built with a newer libc would not start on an older one.
    assert!(dockerfile.contains("-slim-trixie\n") && dockerfile.contains("ARG RUNTIME_IMAGE=debian:13."));
}
