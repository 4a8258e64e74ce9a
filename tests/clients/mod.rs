//! The clients of `docs/clients/`: they send, poll and receive against real processes, through a proxy that fails.

mod document;
mod faulty_proxy;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jobs::transactions::signature;
use serde_json::Value;
use time::OffsetDateTime;

use self::faulty_proxy::{Fault, FaultyProxy};
use crate::{
    architecture::source,
    harness::{
        eventually, needs, node,
        process::{self, Process, http_client},
        scratch::Scratch,
        system::{System, webhook},
    },
};

const SOON: Duration = Duration::from_secs(60);
const KEY: &str = "the-key-of-these-tests";
/// The secret of the sender, and that of another one.
const ACME: &[u8] = b"the secret of acme, for acme only";
const BETA: &[u8] = b"the secret of beta, for beta only";
/// The secrets of callbacks: Millrace signs with the second one, and receivers know both.
const OLD: &[u8] = b"the secret that is rotated out";
const NEW: &[u8] = b"the secret that is rotated in";
const TYPESCRIPT: [&str; 2] = ["@types/node@20.19.43", "typescript@5.9.3"];

const COUNT: usize = 20;
/// The transactions whose first try fails.
const FAULTS: [(&str, Fault); 4] = [
    ("txn-03", Fault::Unavailable),
    ("txn-07", Fault::UnavailableUntil),
    ("txn-11", Fault::TooMany),
    ("txn-15", Fault::LostResponse),
];

fn fault(id: &str) -> Option<Fault> {
    FAULTS.into_iter().find(|(faulty, _)| *faulty == id).map(|(_, fault)| fault)
}

/// The ids of the transactions. One of them is changed by a URL and by a header, unless it is encoded.
fn ids() -> Vec<String> {
    let name = |number: usize| if number == 19 { "txn 19/ü%41".to_owned() } else { format!("txn-{number:02}") };
    (0..COUNT).map(name).collect()
}

fn secret(bytes: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(bytes))
}

/// Starts a program with these arguments and variables.
fn start(program: &[PathBuf], arguments: &[&str], variables: &[(&str, &str)]) -> Process {
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).args(arguments);
    let name = program.last().expect("a program").display().to_string();
    Process::run(&name, command, variables)
}

/// A running receiver, and the folder in which it stores messages.
struct Receiver {
    process: Process,
    url: String,
    folder: PathBuf,
}

impl Receiver {
    async fn start(program: &[PathBuf], folder: &Path) -> Self {
        let (secrets, path) = (format!("{},{}", secret(OLD), secret(NEW)), folder.to_str().expect("UTF-8"));
        let mut process = start(program, &["0", path], &[("CALLBACK_SECRET", &secrets)]);
        let line = process.wait_for_line("listening on ").await;
        let url = line.trim_start_matches("listening on ").to_owned();
        Self { process, url, folder: folder.to_owned() }
    }

    /// The stored messages, by the names of their files.
    fn stored(&self) -> BTreeMap<String, Value> {
        let files = fs::read_dir(&self.folder).expect("a folder").map(|entry| entry.expect("a file").path());
        let complete = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let read = |path: PathBuf| {
            let message: Value = serde_json::from_str(&fs::read_to_string(&path).expect("a file")).expect("JSON");
            (path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned(), message)
        };
        complete.map(read).collect()
    }

    /// How many messages it took for new ones since its start.
    fn received(&self) -> usize {
        self.process.log().lines().filter(|line| line.starts_with("received ")).count()
    }

    /// Posts a message with these headers, and returns the status.
    async fn post(&self, id: &str, at: i64, signed: &str, body: &str) -> u16 {
        let request = http_client().post(&self.url).header("content-type", "application/json").body(body.to_owned());
        let request = request.header("webhook-id", id).header("webhook-timestamp", at.to_string());
        request.header("webhook-signature", signed).send().await.expect("a response").status().as_u16()
    }
}

/// An API behind the proxy, and a sender.
struct ClientHarness {
    sender: Vec<PathBuf>,
    variables: Vec<(&'static str, String)>,
    system: System,
    proxy: FaultyProxy,
    folder: Scratch,
}

impl ClientHarness {
    /// Starts the API. `callbacks` is the URL of a receiver.
    async fn start(sender: &[PathBuf], folder: Scratch, callbacks: Option<&str>) -> Self {
        let mut variables = vec![
            ("WEBHOOK_SECRET", format!("beta:{},acme:{}", secret(BETA), secret(ACME))),
            ("TRANSACTIONS_READ", "key".into()),
            ("API_KEY", KEY.into()),
            ("PROCESSING_DELAY_SECONDS", "0".into()),
            ("QUEUE_POLL_SECONDS", "0.05".into()),
        ];
        if let Some(url) = callbacks {
            variables.push(("CALLBACK_URL", url.to_owned()));
            variables.push(("CALLBACK_SECRET", secret(NEW)));
            variables.push(("CALLBACK_ALLOW_PRIVATE", "true".into()));
        }
        let system = System::start(&borrowed(&variables)).await;
        let proxy = FaultyProxy::start(&system.api.url, fault).await;
        Self { sender: sender.to_vec(), variables, system, proxy, folder }
    }

    /// Starts the sender.
    fn start_sender(&self, arguments: &[&str]) -> Process {
        let secret = secret(ACME);
        let variables = [("MILLRACE_URL", &*self.proxy.url), ("WEBHOOK_SECRET", &*secret), ("MILLRACE_API_KEY", KEY)];
        start(&self.sender, arguments, &variables)
    }

    /// Runs the sender to its end. Returns whether it was successful, and its output.
    async fn run(&self, arguments: &[&str]) -> (bool, String) {
        let mut process = self.start_sender(arguments);
        let status = process.wait_for_exit(SOON).await;
        (status.success(), process.log())
    }

    /// Sends these transactions.
    async fn send(&self, bodies: &[String]) -> (bool, String) {
        let file = self.folder.join("transactions.ndjson");
        fs::write(&file, bodies.join("\n")).expect("a file");
        self.run(&["send", file.to_str().expect("UTF-8")]).await
    }

    /// Twenty transactions are recorded once each, although some tries fail and one transaction is sent twice.
    async fn check_sending(&self) {
        let ids = ids();
        let mut bodies: Vec<String> = ids.iter().map(|id| webhook(id).to_string()).collect();
        bodies.push(bodies[0].clone());
        let (success, output) = self.send(&bodies).await;
        let outcome = |id: &str| if fault(id) == Some(Fault::LostResponse) { "replayed" } else { "accepted" };
        let mut expected: Vec<String> = ids.iter().map(|id| format!("{id} {}", outcome(id))).collect();
        expected.push(format!("{} replayed", ids[0]));
        assert!(success, "{output}");
        assert_eq!(output.lines().collect::<Vec<_>>(), expected, "{output}");
        assert_eq!(self.system.count("SELECT count(*) FROM transactions").await, 20);
        assert_eq!(self.system.count("SELECT count(*) FROM transactions WHERE sender = 'acme'").await, 20);
        for (number, id) in ids.iter().enumerate() {
            let (tries, fault) = (self.proxy.tries(id), fault(id));
            assert_eq!(tries.len(), if number == 0 || fault.is_some() { 2 } else { 1 }, "{id}: {tries:?}");
            let Some(fault) = fault else { continue };
            let [first, second] = &tries[..] else { panic!("{tries:?}") };
            let pause = second.at - first.at;
            assert!(pause >= fault.pause(), "{id}: tried again after {pause:?}");
            assert_eq!((&first.body, first.header("webhook-id")), (&second.body, second.header("webhook-id")));
            let signed_at = |one: &faulty_proxy::Try| one.header("webhook-timestamp").parse::<u64>().expect("a time");
            if fault.pause() >= Duration::from_secs(1) {
                assert!(signed_at(second) > signed_at(first), "{id}: each try is signed with its own time");
            }
        }
    }

    /// What another try cannot mend is not tried again, and fails.
    async fn check_refusals(&self) {
        let (mut changed, mut invalid) = (webhook("txn-00"), webhook("invalid"));
        changed["amount"] = 2.into();
        invalid["currency"] = "no currency".into();
        let (success, output) = self.send(&[changed.to_string()]).await;
        assert!(!success && output.contains("amount"), "a known id with another payload: {output}");
        let (success, output) = self.send(&[invalid.to_string()]).await;
        assert!(!success && output.contains("422"), "{output}");
        let (success, output) = self.run(&["poll", "unknown"]).await;
        assert!(!success && output.contains("404"), "{output}");
        assert_eq!((self.proxy.tries("txn-00").len(), self.proxy.tries("invalid").len()), (3, 1));
    }

    /// The poller waits while no worker runs, and then sees each transaction settled. Returns the worker.
    async fn check_polling(&self) -> Process {
        let (ids, before) = (ids(), self.proxy.reads());
        let arguments: Vec<&str> = ["poll"].into_iter().chain(ids.iter().map(String::as_str)).collect();
        let mut poller = self.start_sender(&arguments);
        eventually("the poller asks again", SOON, async || self.proxy.reads() >= before + 2).await;
        let worker = process::start_worker(&self.system.database.url, &borrowed(&self.variables)).await;
        let status = poller.wait_for_exit(SOON).await;
        let expected: Vec<String> = ids.iter().map(|id| format!("{id} PROCESSED")).collect();
        assert!(status.success(), "{}", poller.log());
        assert_eq!(poller.log().lines().collect::<Vec<_>>(), expected);
        worker
    }

    /// The receiver has each settlement once, and Millrace knows that.
    async fn check_callbacks(&self, receiver: &Receiver) {
        const DELIVERED: &str = "SELECT count(*) FROM callbacks WHERE delivered_at IS NOT NULL";
        eventually("each settlement is delivered", SOON, async || self.system.count(DELIVERED).await == 20).await;
        let stored = receiver.stored();
        assert!(stored.values().all(|message| message["type"] == "transaction.processed"), "{stored:#?}");
        let received = stored.values().map(|message| message["data"]["transaction_id"].as_str().expect("an id"));
        let (mut received, mut sent) = (received.map(str::to_owned).collect::<Vec<_>>(), ids());
        received.sort();
        sent.sort();
        assert_eq!(received, sent);
        eventually("each is received once", SOON, async || receiver.received() == COUNT).await;
    }
}

fn borrowed<'a>(variables: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    variables.iter().map(|(name, value)| (*name, &**value)).collect()
}

/// Forged messages are refused, and a repeated one is taken once, also after a restart.
async fn check_receiver(mut receiver: Receiver, program: &[PathBuf]) {
    let (body, before) = (r#"{"type":"transaction.processed","data":{}}"#, receiver.stored().len());
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let sign = |key: &[u8], at: i64| signature::sign(key, "m-1", &at.to_string(), body.as_bytes());
    let good = sign(NEW, now);
    let with_space = body.replace(':', ": ");
    for (case, id, at, signed, body) in [
        ("the secret of another", "m-1", now, &*sign(ACME, now), body),
        ("another id", "m-2", now, &good, body),
        ("another time", "m-1", now - 1, &good, body),
        ("another body", "m-1", now, &good, &with_space),
        ("too old", "m-1", now - 400, &sign(NEW, now - 400), body),
        ("too early", "m-1", now + 400, &sign(NEW, now + 400), body),
        ("no version", "m-1", now, &good[3..], body),
        ("half of it", "m-1", now, &good[..20], body),
        ("empty", "m-1", now, "", body),
    ] {
        assert_eq!(receiver.post(id, at, signed, body).await, 401, "{case}");
    }
    let unsigned = http_client().post(&receiver.url).body(body).send().await.expect("a response");
    assert_eq!(unsigned.status(), 401);
    assert_eq!(receiver.stored().len(), before, "a forged message is stored");

    let among_others = format!("v1,AAAA v1a,xyz {good}");
    for signed in [&sign(OLD, now), &good, &among_others] {
        assert_eq!(receiver.post("m-1", now, signed, body).await, 204, "{signed}");
        assert_eq!(receiver.stored().len(), before + 1);
    }
    eventually("it is received once", SOON, async || receiver.received() == before + 1).await;
    let folder = receiver.folder.clone();
    // Ends the first one.
    receiver = Receiver::start(program, &folder).await;
    assert_eq!(receiver.post("m-1", now, &good, body).await, 204);
    assert_eq!((receiver.stored().len(), receiver.received()), (before + 1, 0));
}

/// Runs all checks of a language. `receiver` is `None` if it has no receiver.
async fn check(sender: Vec<PathBuf>, receiver: Option<Vec<PathBuf>>) {
    let folder = Scratch::new();
    let (mut running, inbox) = (None, folder.join("inbox"));
    if let Some(program) = &receiver {
        running = Some(Receiver::start(program, &inbox).await);
    }
    let url = running.as_ref().map(|receiver| receiver.url.as_str());
    let harness = ClientHarness::start(&sender, folder, url).await;
    harness.check_sending().await;
    harness.check_refusals().await;
    let _worker = harness.check_polling().await;
    if let Some((running, program)) = running.zip(receiver) {
        harness.check_callbacks(&running).await;
        check_receiver(running, &program).await;
    }
}

/// The path of a client.
fn file(path: &str) -> PathBuf {
    source::root().join("docs/clients").join(path)
}

#[tokio::test]
async fn the_python_client_works() {
    let Some(python) = needs::program("python3") else { return };
    let program = |path: &str| vec![python.clone(), file(path)];
    check(program("python/sender.py"), Some(program("python/receiver.py"))).await;
}

#[tokio::test]
async fn the_typescript_client_works() {
    let Some(runtime) = needs::program("node") else { return };
    let Some(packages) = node::packages(&TYPESCRIPT) else { return };
    let (folder, modules) = (Scratch::new(), packages.join("node_modules"));
    std::os::unix::fs::symlink(&modules, folder.join("node_modules")).expect("a link");
    for name in ["sender.mts", "receiver.mts"] {
        fs::copy(file("typescript").join(name), folder.join(name)).expect("a file");
    }
    let mut compiler = Command::new(modules.join(".bin/tsc"));
    // With `erasableSyntaxOnly` a newer Node can run the files as they are.
    compiler.args(["--strict", "--noUncheckedIndexedAccess", "--erasableSyntaxOnly", "--module", "nodenext"]);
    compiler.args(["--target", "es2022", "--lib", "es2022", "--types", "node", "sender.mts", "receiver.mts"]);
    let output = compiler.current_dir(&*folder).output().expect("tsc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let program = |name: &str| vec![runtime.clone(), folder.join(name)];
    check(program("sender.mjs"), Some(program("receiver.mjs"))).await;
}

#[tokio::test]
async fn the_rust_client_works() {
    let Some(sender) = example("webhook_sender", "rust/sender.rs") else { return };
    let Some(receiver) = example("callback_receiver", "rust/receiver.rs") else { return };
    check(vec![sender], Some(vec![receiver])).await;
}

/// An example that cargo has built from this file. `cargo test --test tests` does not build examples.
fn example(name: &str, path: &str) -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_BIN_EXE_millrace")).with_file_name("examples").join(name);
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let is_current = modified(&program).is_ok_and(|built| built >= modified(&file(path)).expect("a file"));
    if is_current { Some(program) } else { needs::missing("cargo build -p millrace --examples") }
}

#[tokio::test]
async fn the_shell_client_works() {
    if ["curl", "openssl", "od"].iter().any(|name| needs::program(name).is_none()) {
        return;
    }
    let Some(shell) = needs::program("sh") else { return };
    check(vec![shell, file("curl/sender.sh")], None).await;
}
