//! The compose files, parsed by the real Docker Compose.

use std::fs;

use serde_json::Value;

use super::{Packages, read, root, run, tools};
use crate::harness::scratch::Scratch;

const DEFAULT: [&str; 4] = ["api", "migrate", "postgres", "worker"];
const PROFILES: [(&str, &[&str]); 5] = [
    ("adminer", &["adminer"]),
    ("elasticsearch", &["elasticsearch"]),
    ("observability", &["alertmanager", "grafana", "jaeger", "prometheus"]),
    ("redis", &["redis"]),
    ("smart_contract", &["contract", "hardhat"]),
];
/// The variables that prod requires.
const KEYS: [(&str, &str); 6] = [
    ("POSTGRES_PASSWORD", "own-1"),
    ("API_KEY", "own-2"),
    ("ADMIN_API_KEY", "own-3"),
    ("JWT_SECRET", "own-4"),
    ("WEBHOOK_SECRET", "none"),
    ("PROCESSOR_URL", "simulated"),
];

/// The compose files in a temporary folder without a `.env`.
struct Files {
    folder: Scratch,
    tools: Packages,
}

impl Files {
    fn new() -> Option<Self> {
        let (tools, folder) = (tools()?, Scratch::new());
        for name in
            ["docker-compose.yml", "docker-compose.dev.yml", "docker-compose.test.yml", "docker-compose.prod.yml"]
        {
            fs::copy(root().join(name), folder.join(name)).expect("a copy");
        }
        Some(Self { folder, tools })
    }

    /// The configuration that Compose derives from the file, an override and some profiles, or its error message.
    fn config(&self, other: Option<&str>, profiles: &[&str], variables: &[(&str, &str)]) -> Result<Value, String> {
        let mut compose = self.tools.program("docker-compose");
        compose.env_clear().envs(variables.iter().copied()).env("HOME", &*self.folder).current_dir(&*self.folder);
        compose.args(["-f", "docker-compose.yml"]);
        if let Some(other) = other {
            compose.args(["-f", &format!("docker-compose.{other}.yml")]);
        }
        for profile in profiles {
            compose.args(["--profile", profile]);
        }
        let output = compose.args(["config", "--format", "json"]).output().expect("compose");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(stderr);
        }
        assert_eq!(stderr, "", "Compose prints no warning");
        Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
    }
}

fn services(config: &Value) -> Vec<&str> {
    let mut names: Vec<_> = config["services"].as_object().expect("services").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn each_profile_and_override_is_valid() {
    let Some(files) = Files::new() else { return };
    assert_eq!(services(&files.config(None, &[], &[]).unwrap()), DEFAULT);
    let sorted = |names: &[&[&'static str]]| {
        let mut all = names.concat();
        all.sort_unstable();
        all
    };
    for (profile, own) in PROFILES {
        assert_eq!(services(&files.config(None, &[profile], &[]).unwrap()), sorted(&[&DEFAULT, own]), "{profile}");
    }
    let all: Vec<_> = PROFILES.iter().flat_map(|(_, own)| own.iter().copied()).collect();
    for (other, more) in [(None, &[][..]), (Some("dev"), &[]), (Some("test"), &["smoke"])] {
        let config = files.config(other, &["*"], &[]).unwrap_or_else(|error| panic!("{other:?}: {error}"));
        assert_eq!(services(&config), sorted(&[&DEFAULT, &all, more]), "{other:?}");
    }
    // Development services cannot be started in prod.
    let prod = files.config(Some("prod"), &["*"], &KEYS).unwrap();
    assert_eq!(
        services(&prod),
        sorted(&[&DEFAULT, &["alertmanager", "elasticsearch", "grafana", "jaeger", "prometheus", "redis"]])
    );
}

#[test]
fn a_misspelt_key_is_an_error() {
    let Some(files) = Files::new() else { return };
    let file = read("docker-compose.yml");
    for (key, wrong, complaint) in [
        ("stop_grace_period:", "stop_grace_periods:", "stop_grace_periods"),
        ("service_healthy", "service_healthful", "depends_on.postgres.condition"),
    ] {
        let planted = file.replacen(key, wrong, 1);
        assert_ne!(planted, file, "{key} is there");
        fs::write(files.folder.join("docker-compose.yml"), planted).unwrap();
        let error = files.config(None, &[], &[]).expect_err(wrong);
        assert!(error.contains(complaint), "{wrong}: {error}");
    }
}

#[test]
fn services_can_be_scaled_and_have_time_to_stop() {
    let Some(files) = Files::new() else { return };
    for other in [None, Some("dev"), Some("test"), Some("prod")] {
        let config = files.config(other, &["*"], &KEYS).unwrap();
        for (name, service) in config["services"].as_object().unwrap() {
            let case = format!("{other:?} {name}: {service}");
            assert!(service["container_name"].is_null(), "a container name prevents scaling: {case}");
            let tag = service["image"].as_str().and_then(|image| image.rsplit_once(':')).map(|(_, tag)| tag);
            assert!(tag.is_some_and(|tag| tag != "latest"), "the image has a fixed tag: {case}");
            if service["image"].as_str().is_some_and(|image| image.starts_with("millrace:")) {
                assert_eq!(
                    service["stop_grace_period"], "40s",
                    "a stop takes up to 30 s, drain delay included: {case}"
                );
                assert_eq!(service["cap_drop"][0], "ALL", "{case}");
                assert_eq!(service["read_only"], true, "{case}");
            } else {
                // Images of others are pinned to more than a major version.
                assert!(tag.is_some_and(|tag| tag.contains('.') || tag == "local"), "the tag is not pinned: {case}");
            }
            for port in service["ports"].as_array().into_iter().flatten() {
                assert_eq!(port["host_ip"], "127.0.0.1", "default keys must not be reachable from other hosts: {case}");
            }
        }
        let worker = &config["services"]["worker"];
        assert!(worker["ports"].is_null(), "a host port prevents scaling: {worker}");
        for name in ["api", "worker"] {
            let migrated = &config["services"][name]["depends_on"]["migrate"]["condition"];
            assert_eq!(migrated, "service_completed_successfully", "{other:?} {name}");
        }
        assert_eq!(config["services"]["migrate"]["depends_on"]["postgres"]["condition"], "service_healthy");
        assert_eq!(
            config["services"]["migrate"]["restart"], "no",
            "{other:?}: a restart would keep it from completing"
        );
    }
}

/// Compose builds in parallel, and parallel builds of one tag fail with "image already exists".
#[test]
fn each_image_is_built_by_one_service() {
    let Some(files) = Files::new() else { return };
    for other in [None, Some("dev"), Some("test"), Some("prod")] {
        let config = files.config(other, &["*"], &KEYS).unwrap();
        let services = config["services"].as_object().unwrap();
        let built: Vec<_> = services.values().filter(|service| service["build"].is_object()).collect();
        for service in services.values().filter(|service| service["image"].as_str().unwrap().starts_with("millrace")) {
            let builders = built.iter().filter(|builder| builder["image"] == service["image"]).count();
            assert_eq!(builders, 1, "{other:?}: {}", service["image"]);
        }
    }
}

#[test]
fn all_processes_log_where_the_export_reads() {
    let Some(files) = Files::new() else { return };
    for other in [None, Some("dev"), Some("test"), Some("prod")] {
        let config = files.config(other, &[], &KEYS).unwrap();
        for name in ["api", "worker", "migrate"] {
            let service = &config["services"][name];
            let volume = &service["volumes"][0];
            assert_eq!((&volume["source"], &volume["type"]), (&"logs".into(), &"volume".into()), "{other:?} {name}");
            assert_eq!(volume["target"], service["environment"]["LOG_DIR"], "{other:?} {name}");
            assert!(read("Dockerfile").contains(&format!("10001 {}", volume["target"].as_str().unwrap())));
        }
    }
}

#[test]
fn variables_reach_the_processes_from_a_file_and_from_the_shell() {
    let Some(files) = Files::new() else { return };
    fs::copy(root().join(".env.example"), files.folder.join(".env")).unwrap();
    let mut env = read(".env.example");
    env += "WEBHOOK_CONFLICT=reject\nREDIS_URL=redis://file:6379\n";
    fs::write(files.folder.join(".env"), env).unwrap();
    let config = files.config(None, &[], &[("REDIS_URL", "redis://shell:6379"), ("PORT", "8001")]).unwrap();
    for name in ["api", "worker", "migrate"] {
        let environment = &config["services"][name]["environment"];
        for (variable, value) in [
            ("WEBHOOK_CONFLICT", "reject"),
            ("PROCESSOR_ATTEMPTS", "10"),
            ("REDIS_URL", "redis://shell:6379"),
            // Fixed in containers; the values of `.env` are for processes on the host.
            ("HOST", "0.0.0.0"),
            ("PORT", "8000"),
            ("LOG_DIR", "/var/log/millrace"),
        ] {
            assert_eq!(environment[variable], value, "{name}: {variable}");
        }
    }
    assert_eq!(config["services"]["api"]["ports"][0]["published"], "8001");
}

#[test]
fn prod_names_every_key_that_is_missing() {
    let Some(files) = Files::new() else { return };
    let error = files.config(Some("prod"), &[], &[]).expect_err("no keys");
    for (key, _) in KEYS {
        assert!(error.contains(&format!("required variable {key} is missing")), "{key}: {error}");
    }
    let prod = files.config(Some("prod"), &[], &KEYS).unwrap();
    for name in ["api", "worker", "migrate"] {
        let environment = &prod["services"][name]["environment"];
        assert_eq!((&environment["ENV"], &environment["CHAIN_PRIVATE_KEY"]), (&"prod".into(), &"".into()), "{name}");
    }
}

/// Compose's default for `CONTRACT_ADDRESS` is the address of the first contract of the default key on a new chain.
#[cfg(feature = "smart-contract")]
#[tokio::test]
async fn the_first_contract_has_composes_default_address() {
    use crate::harness::{
        anvil::{Node, OWNER_KEY},
        process::Process,
    };
    let Some(node) = Node::start().await else { return };
    let variables = [("CHAIN_RPC_URL", &*node.url), ("CHAIN_PRIVATE_KEY", OWNER_KEY)];
    let mut deploy = Process::start(&["contract", "deploy"], &variables);
    assert!(deploy.wait_for_exit(std::time::Duration::from_secs(60)).await.success(), "{}", deploy.log());
    let (file, log) = (read("docker-compose.yml"), deploy.log());
    let address = log.lines().find(|line| line.starts_with("0x")).unwrap_or_else(|| panic!("no address: {log}"));
    assert!(file.to_lowercase().contains(&format!("contract_address:-{address}}}").to_lowercase()), "{address}");
    assert!(file.contains(&format!("CHAIN_PRIVATE_KEY:-{OWNER_KEY}}}")));
}

#[test]
fn the_program_is_docker_compose() {
    let Some(tools) = tools() else { return };
    let (succeeded, output) = run(tools.program("docker-compose").arg("version"));
    assert!(succeeded && output.starts_with("Docker Compose version"), "{output}");
}

/// `.ci/containers/run` starts every service. Two have no stand-in, so they run only where images can be pulled.
#[test]
fn the_test_of_the_containers_starts_every_service() {
    let Some(files) = Files::new() else { return };
    let script = read(".ci/containers/run");
    let list = script.lines().find_map(|line| line.strip_prefix("readonly STAND_INS=\"")).expect("a list");
    let stand_ins: Vec<&str> = list.trim_end_matches('"').split(' ').collect();
    let mut all = [&stand_ins, &["api", "contract", "migrate", "worker"][..], &["elasticsearch", "grafana"]].concat();
    all.sort_unstable();
    assert_eq!(services(&files.config(Some("test"), &["*"], &[]).unwrap()), all);
    let (targets, cases) = (read(".ci/containers/stand-ins/Dockerfile"), read(".ci/containers/cases"));
    for name in stand_ins {
        assert!(targets.contains(&format!("\nFROM packages AS {name}\n")), "{name} has no stand-in");
    }
    for (profile, _) in PROFILES {
        assert!(cases.contains(&format!("\ncase_{profile}() {{\n")), "the profile {profile} has no case");
    }
}
