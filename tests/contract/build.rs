//! The committed interface and bytecode match the contract's source.

use std::{fs, process::Command};

use crate::harness::{needs, node, scratch::Scratch};

#[test]
fn the_committed_build_matches_the_source() {
    let contracts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts");
    let read = |name: &str| fs::read_to_string(contracts.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    // package.json is the only place with the compiler version.
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
        "contracts/InterestRates.json does not match InterestRates.sol: run npm install && npm run build in contracts/"
    );
}
