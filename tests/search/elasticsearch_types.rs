//! Type-checks our requests to Elasticsearch against the TypeScript types of Elastic's own client.

use std::process::Command;

use jobs::items::search::{Elasticsearch, Search, Server, elasticsearch::Write};

use super::{document, fake::FakeElasticsearch};
use crate::harness::{node, process, scratch::Scratch};

const PACKAGES: [&str; 2] = ["@elastic/elasticsearch@9.4.3", "typescript@7.0.2"];

#[tokio::test]
async fn requests_have_the_types_of_the_elasticsearch_client() {
    let Some(packages) = node::packages(&PACKAGES) else { return };
    let program = typescript(&send_every_request().await);
    assert_eq!(compile(&packages, &program), None, "{program}");
    // A misspelt key in each kind of request must fail. These types allow any key in the settings of an index.
    for key in ["fuzziness", "minimum_should_match", "version_type", "search_after", "dynamic", "aliases"] {
        let misspelt = program.replacen(&format!("\"{key}\":"), &format!("\"{key}_\":"), 1);
        assert_ne!(misspelt, program, "no request has {key}");
        let complaint = compile(&packages, &misspelt).unwrap_or_default();
        assert!(complaint.contains(&format!("{key}_")), "a misspelt {key} goes unnoticed: {complaint}");
    }
}

/// Sends one request of each kind. Returns those with a body, as the fake received them.
async fn send_every_request() -> Vec<(String, String)> {
    drop(process::http_client());
    let fake = FakeElasticsearch::start().await;
    let elasticsearch = Elasticsearch::new(&Server::parse(&fake.url()).unwrap()).unwrap();
    elasticsearch.upsert(document(1, 1, "kettle", Some("red"))).await.unwrap();
    elasticsearch.search("kettle", 20).await.unwrap();
    elasticsearch.documents_after(0, 100).await.unwrap();
    let writes = vec![Write::Upsert(document(2, 1, "mug", None)), Write::Remove { id: 1, version: 2 }];
    elasticsearch.write(writes).await.unwrap();
    let sent = fake.state().sent.clone();
    // Two of them are searches: without and with misspelt words.
    assert_eq!(sent.len(), 6, "{sent:?}");
    sent
}

/// A program with one typed constant for each body.
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
                // Elastic's client has the name of the index as a field.
                let index = format!("{{\"index\":\"{name}\",{}", body.strip_prefix('{').unwrap());
                constant("es.IndicesCreateRequest", &index);
            }
            _ => assert!(request.contains("/_doc/"), "a request of no known kind: {request}"),
        }
    }
    program
}

/// Compiles a program. Returns the compiler's output if it fails.
fn compile(packages: &std::path::Path, program: &str) -> Option<String> {
    let folder = Scratch::new();
    std::os::unix::fs::symlink(packages.join("node_modules"), folder.join("node_modules")).unwrap();
    std::fs::write(folder.join("sent.ts"), program).unwrap();
    let flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext"];
    let mut compiler = Command::new(packages.join("node_modules/.bin/tsc"));
    let output = compiler.args(flags).arg("sent.ts").current_dir(&*folder).output().expect("a compiler");
    let messages = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then_some(messages)
}
