//! The committed interface and bytecode are what the source becomes.

use std::{fs, process::Command};

use crate::harness::{needs, node, scratch::Scratch};

#[test]
fn the_committed_build_is_what_the_source_becomes() {
    let contracts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts");
    let read = |name: &str| fs::read_to_string(contracts.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    // The version stands in one place.
    let manifest: serde_json::Value = serde_json::from_str(&read("package.json")).expect("package.json is JSON");
    let version = manifest["dependencies"]["solc"].as_str().expect("a compiler");
    let Some(packages) = node::packages(&[&format!("solc@{version}")]) else { return };
    let Some(program) = needs::program("node") else { return };
    let scratch = Scratch::new();
    let target = scratch.join("InterestRates.json");
    let mut build = Command::new(program);
    let output = build.arg(contracts.join("build.js")).arg(&target).current_dir(packages).output().expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let built = fs::read_to_string(target).expect("a build");
    assert!(
        built == read("InterestRates.json"),
        "contracts/InterestRates.json is not what InterestRates.sol becomes: npm install && npm run build, in contracts/"
    );
}
