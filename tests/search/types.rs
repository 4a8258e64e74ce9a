//! What we send to Elasticsearch, against the types that Elastic publishes for its own client.

use std::process::Command;

use jobs::items::search::{Elasticsearch, Search, Server, elasticsearch::Write};

use super::{document, fake::Fake};
use crate::harness::{node, process, scratch::Scratch};

const PACKAGES: [&str; 2] = ["@elastic/elasticsearch@9.4.3", "typescript@7.0.2"];

#[tokio::test]
async fn what_is_sent_has_elastics_types() {
    let Some(packages) = node::packages(&PACKAGES) else { return };
    let program = typescript(&everything_sent().await);
    assert_eq!(compile(&packages, &program), None, "{program}");
    // It would tell: in each kind of request a key that is none. Settings of an index are open to any key in these types.
    for key in ["fuzziness", "minimum_should_match", "version_type", "search_after", "dynamic", "aliases"] {
        let planted = program.replacen(&format!("\"{key}\":"), &format!("\"{key}_\":"), 1);
        assert_ne!(planted, program, "{key} is sent");
        let complaint = compile(&packages, &planted).unwrap_or_default();
        assert!(complaint.contains(&format!("{key}_")), "a misspelt {key} goes unnoticed: {complaint}");
    }
}

/// Every request with a body, as the imitation got it.
async fn everything_sent() -> Vec<(String, String)> {
    drop(process::client());
    let fake = Fake::start().await;
    let elasticsearch = Elasticsearch::new(&Server::parse(&fake.url()).unwrap()).unwrap();
    elasticsearch.upsert(document(1, 1, "kettle", Some("red"))).await.unwrap();
    elasticsearch.search("kettle", 20).await.unwrap();
    elasticsearch.documents_after(0, 100).await.unwrap();
    let writes = vec![Write::Upsert(document(2, 1, "mug", None)), Write::Remove { id: 1, version: 2 }];
    elasticsearch.write(writes).await.unwrap();
    let sent = fake.state().sent.clone();
    assert_eq!(sent.len(), 5, "{sent:?}");
    sent
}

/// One constant for each body, with the type that it must have.
fn typescript(sent: &[(String, String)]) -> String {
    let mut program = "import type * as es from '@elastic/elasticsearch/lib/api/types';\n".to_owned();
    let mut constant = |kind: &str, value: &str| {
        let number = program.lines().count();
        program += &format!("export const value{number}: {kind} = {value};\n");
    };
    for (request, body) in sent {
        let path = request.split([' ', '?']).nth(1).unwrap();
        match path.rsplit('/').next().unwrap() {
            "_search" => constant("es.SearchRequest", body),
            "_bulk" => body
                .lines()
                .filter(|line| line.starts_with("{\"index\":") || line.starts_with("{\"delete\":"))
                .for_each(|action| constant("es.BulkOperationContainer", action)),
            name if path == format!("/{name}") => {
                // In Elastic's client the name is a field like the others.
                let index = format!("{{\"index\":\"{name}\",{}", body.strip_prefix('{').unwrap());
                constant("es.IndicesCreateRequest", &index);
            }
            _ => assert!(request.contains("/_doc/"), "a request of no known kind: {request}"),
        }
    }
    program
}

/// What the compiler says against it.
fn compile(packages: &std::path::Path, program: &str) -> Option<String> {
    let folder = Scratch::new();
    std::os::unix::fs::symlink(packages.join("node_modules"), folder.join("node_modules")).unwrap();
    std::fs::write(folder.join("sent.ts"), program).unwrap();
    let flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext"];
    let mut compiler = Command::new(packages.join("node_modules/.bin/tsc"));
    let output = compiler.args(flags).arg("sent.ts").current_dir(&*folder).output().expect("a compiler");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then_some(said)
}
