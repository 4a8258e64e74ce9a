//! A private Ethereum node for one test, which can mine on demand, freeze, stop and restart it with the same chain.

use std::{path::PathBuf, process::Command, time::Duration};

use nix::{
    sys::{
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    eventually, needs, node,
    port::Port,
    process::{self, Process},
    scratch::Scratch,
};

/// A native binary without install scripts; 44 MB.
const PACKAGE: &str = "@foundry-rs/anvil@1.7.1";
const SOON: Duration = Duration::from_secs(20);

/// Keys and addresses of the first two accounts of every development node.
pub(crate) const OWNER_KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
pub(crate) const OWNER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
pub(crate) const OTHER_KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
pub(crate) const OTHER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

/// A node with its own chain. It is killed when dropped, and when the thread that started it ends in any way.
pub(crate) struct Node {
    program: PathBuf,
    process: Process,
    port: Port,
    pub url: String,
    scratch: Scratch,
    arguments: &'static [&'static str],
    client: reqwest::Client,
}

impl Node {
    /// Starts a node. If npm or anvil is missing, records this test as not run.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a node with more arguments, such as `--hardfork berlin`.
    pub(crate) async fn start_with(arguments: &'static [&'static str]) -> Option<Self> {
        let packages = node::packages(&[PACKAGE])?;
        // npm has installed the package for this platform.
        let platforms = std::fs::read_dir(packages.join("node_modules/@foundry-rs")).expect("the package's folder");
        let programs = platforms.filter_map(Result::ok).map(|entry| entry.path().join("bin/anvil"));
        let program = programs.into_iter().find(|program| program.is_file());
        let program = program.or_else(|| needs::missing("anvil for this platform"))?;
        let scratch = Scratch::new();
        let port = Port::free();
        let url = format!("http://127.0.0.1:{port}");
        let process = run(&program, &port, &scratch, arguments);
        let mut node = Self { program, process, port, url, scratch, arguments, client: process::http_client() };
        node.wait_until_ready().await;
        Some(node)
    }

    async fn wait_until_ready(&mut self) {
        let (client, url) = (self.client.clone(), self.url.clone());
        let process = &mut self.process;
        eventually("anvil responds", SOON, async || {
            assert!(process.is_running(), "anvil has ended:\n{}", process.log());
            let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": [] });
            client.post(&url).json(&request).send().await.is_ok_and(|response| response.status().is_success())
        })
        .await;
    }

    /// Stops the node. It keeps its blocks and loses its pending transactions.
    pub(crate) async fn stop(&mut self) {
        self.process.signal(Signal::SIGTERM);
        self.process.wait_for_exit(SOON).await;
    }

    /// Starts the node again on the same port with the same chain.
    pub(crate) async fn start_again(&mut self) {
        self.process = run(&self.program, &self.port, &self.scratch, self.arguments);
        self.wait_until_ready().await;
    }

    /// Freezes the node. It stops responding, and its connections stay open.
    pub(crate) fn freeze(&self) {
        self.process.signal(Signal::SIGSTOP);
        // The stop is reported once the last thread has stopped; until then the node may respond.
        let stopped = waitpid(Pid::from_raw(self.process.pid().cast_signed()), Some(WaitPidFlag::WUNTRACED));
        assert!(matches!(stopped, Ok(WaitStatus::Stopped(..))), "{stopped:?}");
    }

    pub(crate) fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Calls a JSON-RPC method and returns its result.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let response = self.client.post(&self.url).json(&request).send().await.expect("a response");
        let mut body: Value = response.json().await.expect("JSON");
        assert!(body["error"].is_null(), "{method}: {}", body["error"]);
        body["result"].take()
    }

    /// Sets whether each transaction is mined at once (the default) or waits for [`Node::mine`].
    pub(crate) async fn set_automine(&self, on: bool) {
        self.call("evm_setAutomine", json!([on])).await;
    }

    /// Mines one block with all pending transactions.
    pub(crate) async fn mine(&self) {
        self.call("evm_mine", json!([])).await;
    }

    /// Waits for the receipt of a transaction, which is mined shortly after it was sent.
    pub(crate) async fn receipt(&self, hash: &Value) -> Value {
        let mut receipt = Value::Null;
        eventually("a transaction is in a block", SOON, async || {
            receipt = self.call("eth_getTransactionReceipt", json!([hash])).await;
            !receipt.is_null()
        })
        .await;
        receipt
    }

    /// Removes a pending transaction from the pool.
    pub(crate) async fn drop_transaction(&self, hash: &str) {
        assert_eq!(self.call("anvil_dropTransaction", json!([hash])).await, json!(hash), "the transaction was pending");
    }
}

fn run(program: &PathBuf, port: &Port, scratch: &Scratch, arguments: &[&str]) -> Process {
    // On Linux the kernel kills the node together with the test's thread. Elsewhere only `drop` does.
    let mut command = match ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().find(|path| PathBuf::from(path).is_file())
    {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command
        .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--state"])
        .arg(scratch.join("chain.json"))
        .args(arguments);
    let home = scratch.display().to_string();
    Process::run("anvil", command, &[("HOME", &home)])
}
