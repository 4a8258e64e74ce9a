//! The Kubernetes manifests: they match the schemas of Kubernetes and KEDA, and each other.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

use super::{Packages, read, root, run, tools};
use crate::harness::{node, scratch::Scratch};

const FOLDER: &str = "deploy/kubernetes";
const KEDA: [&str; 2] = ["@kubernetes-models/keda@2.0.0", "typescript@7.0.2"];
/// The oldest supported Kubernetes release, and the newest one with published schemas.
const RELEASES: [&str; 2] = ["1.34.0", "1.37.0"];

/// The names of the manifests that are applied.
fn files() -> Vec<String> {
    let files = fs::read_dir(root().join(FOLDER)).expect("manifests").flatten();
    let mut names: Vec<String> = files.map(|file| file.file_name().display().to_string()).collect();
    names.retain(|name| name.ends_with(".yaml") && name != "kustomization.yaml");
    names.sort_unstable();
    names
}

/// The objects of one file.
fn objects(tools: &Packages, name: &str) -> Vec<Value> {
    let mut python = tools.python();
    python.args(["-c", "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"]);
    let (succeeded, output) = run(python.arg(root().join(FOLDER).join(name)));
    assert!(succeeded, "{name}: {output}");
    serde_json::from_str(&output).expect("JSON")
}

fn all_objects(tools: &Packages) -> Vec<Value> {
    files().iter().flat_map(|name| objects(tools, name)).collect()
}

fn validate(tools: &Packages, release: &str, file: &Path) -> (bool, String) {
    run(tools.program("kubernetes-validate").args(["--strict", "-k", release]).arg(file))
}

#[test]
fn each_manifest_matches_the_published_schemas() {
    let Some(tools) = tools() else { return };
    for release in RELEASES {
        for name in files() {
            let (valid, output) = validate(&tools, release, &root().join(FOLDER).join(&name));
            assert!(valid, "{release} {name}: {output}");
            // Kubernetes has no schema for KEDA's ScaledObject; the test below checks it.
            assert!(!output.contains("WARN") || name == "scaledobject.yaml", "{release} {name}: {output}");
        }
    }
    // The validator reports planted mistakes: an unknown key, and values of another type.
    let (folder, api) = (Scratch::new(), read(&format!("{FOLDER}/api.yaml")));
    for (right, wrong) in [
        ("terminationGracePeriodSeconds", "terminationGracePeriod"),
        ("replicas: 2", "replicas: two"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: 1"),
    ] {
        let planted = api.replacen(right, wrong, 1);
        assert_ne!(planted, api, "{right} is there");
        let file = folder.join("planted.yaml");
        fs::write(&file, planted).unwrap();
        let (valid, output) = validate(&tools, RELEASES[1], &file);
        assert!(!valid, "{wrong} is not reported: {output}");
    }
}

#[test]
fn the_scaled_object_matches_the_types_of_keda() {
    let (Some(tools), Some(packages)) = (tools(), node::packages(&KEDA)) else { return };
    let object = objects(&tools, "scaledobject.yaml").remove(0);
    let program = |object: &str| {
        format!(
            "import type {{ IScaledObject }} from '@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject';\n\
             export const object: IScaledObject = {object};\n"
        )
    };
    let text = object.to_string();
    assert_eq!(compile(&packages, &program(&text)), None);
    for key in ["minReplicaCount", "scaleTargetRef", "metricType", "failureThreshold"] {
        let planted = text.replacen(&format!("\"{key}\":"), &format!("\"{key}_\":"), 1);
        assert_ne!(planted, text, "{key} is there");
        let complaint = compile(&packages, &program(&planted)).unwrap_or_default();
        assert!(complaint.contains(key), "a misspelt {key} is not reported: {complaint}");
    }
    // The metadata of a trigger has no schema; these keys are from KEDA's documentation of its Prometheus scaler.
    for trigger in object["spec"]["triggers"].as_array().expect("triggers") {
        assert_eq!((&trigger["type"], &trigger["metricType"]), (&"prometheus".into(), &"AverageValue".into()));
        let keys: BTreeSet<_> = trigger["metadata"].as_object().expect("metadata").keys().map(String::as_str).collect();
        assert_eq!(keys, BTreeSet::from(["ignoreNullValues", "query", "serverAddress", "threshold"]));
        assert_eq!(trigger["metadata"]["ignoreNullValues"], "false", "a missing metric must not scale down");
        let address = trigger["metadata"]["serverAddress"].as_str().expect("an address");
        assert!(address.contains(".svc"), "KEDA asks from its own namespace: {address}");
        assert!(
            trigger["metadata"]["query"]
                .as_str()
                .is_some_and(|query| query.contains("millrace_queue_") || query.contains("millrace_workers_needed"))
        );
    }
}

/// The error messages of the TypeScript compiler, if there are any.
fn compile(packages: &Path, program: &str) -> Option<String> {
    let folder = Scratch::new();
    std::os::unix::fs::symlink(packages.join("node_modules"), folder.join("node_modules")).unwrap();
    fs::write(folder.join("object.ts"), program).unwrap();
    let flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "preserve", "--moduleResolution", "bundler"];
    let mut compiler = Command::new(packages.join("node_modules/.bin/tsc"));
    let (succeeded, output) = run(compiler.args(flags).arg("object.ts").current_dir(&*folder));
    (!succeeded).then_some(output)
}

#[test]
fn every_manifest_is_applied_and_none_names_a_namespace() {
    let Some(tools) = tools() else { return };
    let mut applied: Vec<String> = objects(&tools, "kustomization.yaml")[0]["resources"]
        .as_array()
        .expect("resources")
        .iter()
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect();
    applied.sort_unstable();
    assert_eq!(applied, files());
    for object in all_objects(&tools) {
        assert!(object["metadata"]["namespace"].is_null(), "{object}");
        assert_ne!(object["kind"], "Secret", "secrets must not be in the repository: {object}");
    }
}

#[test]
fn manifests_match_each_other_and_the_programs() {
    let Some(tools) = tools() else { return };
    let objects = all_objects(&tools);
    let of = |kind: &str| objects.iter().filter(move |object| object["kind"] == kind).collect::<Vec<_>>();
    let environment = &of("ConfigMap")[0]["data"];
    let example = read(".env.example");
    for variable in environment.as_object().expect("variables").keys() {
        assert!(example.contains(&format!("{variable}=")), "{variable} is not a variable of Millrace");
    }
    for line in read(&format!("{FOLDER}/secret.example.env")).lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once('=').expect("NAME=");
        assert!(example.contains(&format!("{name}=")) && value.is_empty(), "{line}");
    }
    let mut labels = BTreeSet::new();
    for deployment in of("Deployment") {
        let template = &deployment["spec"]["template"];
        // The 30 s of a stop and 5 s in reserve; the API also has its drain delay.
        let drain: i32 = environment["DRAIN_DELAY_SECONDS"].as_str().expect("a variable").parse().expect("seconds");
        assert!(drain >= 5, "until no traffic is routed to an API that stops");
        let is_api = deployment["metadata"]["name"] == "millrace-api";
        let grace = 35 + if is_api { drain } else { 0 };
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
        labels.insert(template["metadata"]["labels"].to_string());
        assert_eq!(template["spec"]["terminationGracePeriodSeconds"], grace, "a stop takes up to 30 s");
        let container = &template["spec"]["containers"][0];
        let (port, variable) = match container["command"][0].as_str() {
            Some("api") => ("http", "PORT"),
            Some("worker") => ("health", "WORKER_HEALTH_PORT"),
            other => panic!("the image has no program {other:?}"),
        };
        assert_eq!(container["ports"][0]["name"], port);
        assert_eq!(container["ports"][0]["containerPort"].to_string(), environment[variable].as_str().unwrap());
        for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz"), ("startupProbe", "/livez")] {
            let get = &container[probe]["httpGet"];
            assert_eq!((&get["path"], &get["port"]), (&path.into(), &port.into()), "{probe}");
        }
    }
    for pod in of("Deployment") {
        let spec = &pod["spec"]["template"]["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{pod}");
        assert_eq!(spec["initContainers"][0]["command"], serde_json::json!(["millrace", "migrate"]), "{pod}");
        for container in [&spec["containers"][0], &spec["initContainers"][0]] {
            let security = &container["securityContext"];
            assert_eq!(
                (&security["readOnlyRootFilesystem"], &security["allowPrivilegeEscalation"]),
                (&true.into(), &false.into())
            );
            assert!(!container["resources"]["limits"]["memory"].is_null(), "{pod}");
            assert_eq!(container["volumeMounts"][0]["mountPath"], environment["LOG_DIR"], "{pod}");
        }
        let user = spec["securityContext"]["runAsUser"].to_string();
        assert!(read("Dockerfile").contains(&format!("USER {user}:")), "the user of the image is not {user}");
    }
    for object in [of("PodDisruptionBudget"), of("Service"), of("NetworkPolicy")].concat() {
        let spec = &object["spec"];
        let selectors = [&spec["selector"]["matchLabels"], &spec["podSelector"]["matchLabels"], &spec["selector"]];
        let selector = selectors.into_iter().find(|labels| labels.is_object()).expect("labels");
        assert!(labels.contains(&selector.to_string()), "no deployment has these labels: {selector}");
    }
    let scaled = of("ScaledObject")[0]["spec"]["scaleTargetRef"]["name"].clone();
    for trigger in of("ScaledObject")[0]["spec"]["triggers"].as_array().expect("triggers") {
        let query = trigger["metadata"]["query"].as_str().expect("a query");
        let is_aware = query.contains("millrace_queue_paused") || query.contains("millrace_workers_needed");
        assert!(is_aware, "a queue that is paused on purpose scales nothing up: {query}");
    }
    assert!(of("Deployment").iter().any(|deployment| deployment["metadata"]["name"] == scaled), "{scaled}");
}

/// An API opens up to 15 connections and a worker up to 20; a rollout adds one of each.
#[test]
fn the_connections_at_maximum_scale_fit_into_max_connections() {
    let Some(tools) = tools() else { return };
    let objects = all_objects(&tools);
    let find = |kind: &str, name: &str| {
        let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    };
    let apis = find("Deployment", "millrace-api")["spec"]["replicas"].as_i64().expect("a number") + 1;
    let workers = find("ScaledObject", "millrace-worker")["spec"]["maxReplicaCount"].as_i64().expect("a number") + 1;
    let needed = apis * 15 + workers * 20;
    let (kustomization, scaler) =
        (read(&format!("{FOLDER}/kustomization.yaml")), read(&format!("{FOLDER}/scaledobject.yaml")));
    assert!(needed <= 300 && kustomization.contains("max_connections = 300"), "{needed}");
    assert!(scaler.contains(&format!("= {needed}:")), "{needed} connections");
}
