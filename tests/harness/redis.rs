//! A private Redis for one test, which can fill, empty, freeze and kill it.

use std::{process::Command, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{eventually, needs, port::Port, process::Process, scratch::Scratch};

const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Redis {
    process: Process,
    port: Port,
    pub url: String,
    _scratch: Scratch,
}

impl Redis {
    /// Starts a server. If Redis is not installed, records this test as not run.
    pub(crate) async fn start() -> Option<Self> {
        let program = needs::program("redis-server")?;
        let scratch = Scratch::new();
        let port = Port::free();
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--requirepass").arg("not-to-be-printed").current_dir(&*scratch);
        // Under the fake clock of `.ci/at`, Redis's allocator hangs at the start. Redis only measures durations, so the real
        // clock will do.
        let process = Process::run("redis-server", command, &[("LD_PRELOAD", "")]);
        let url = format!("redis://:not-to-be-printed@127.0.0.1:{port}/0");
        let redis = Self { process, port, url, _scratch: scratch };
        eventually("redis responds", SOON, async || {
            redis.command("PING").await.is_some_and(|text| text.contains("PONG"))
        })
        .await;
        Some(redis)
    }

    /// Sends a command and returns the raw response.
    pub(crate) async fn command(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.port.address()).await.ok()?;
        let text = format!("AUTH not-to-be-printed\r\n{command}\r\nQUIT\r\n");
        stream.write_all(text.as_bytes()).await.ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await.ok()?;
        Some(response)
    }

    /// The number of keys.
    pub(crate) async fn keys(&self) -> u32 {
        let response = self.command("DBSIZE").await.expect("a response");
        response.lines().find_map(|line| line.strip_prefix(':')).and_then(|size| size.parse().ok()).expect("a number")
    }

    /// Deletes every key.
    pub(crate) async fn flush(&self) {
        assert!(self.command("FLUSHALL").await.is_some_and(|text| text.matches("+OK").count() >= 2));
    }

    pub(crate) fn freeze(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    pub(crate) fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    pub(crate) async fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait_for_exit(SOON).await;
    }
}
