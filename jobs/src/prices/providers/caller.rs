//! One call to a source: in its turn, tried again when that may help, and never against its will.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, header, redirect};
use tokio::time::Instant;

use super::{
    Trouble,
    budget::{Allowance, Budget},
    circuit::{Circuit, Pass, Shut},
    metrics::{Outcome, Series},
};
use crate::{
    clock::Clock,
    error::Error,
    prices::model::Source,
    queue::retry::Backoff,
    remote::{retry_after::retry_after, send::send},
};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// One try, from the connection to the last byte.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest answers are lists of all pairs or coins: some mebibytes.
const LARGEST: usize = 8 << 20;
/// One call, with its turn and all its tries. Of many pages each is a call.
const CALL_LIMIT: Duration = Duration::from_secs(20);
const TRIES: u32 = 3;
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(2) };
/// A source that wants to be asked again within this is waited for; a longer wait is the caller's affair.
const SHORT: Duration = Duration::from_secs(2);
/// No ban is taken for shorter than this: asking while it lasts makes it longer.
const SHORTEST_BAN: Duration = Duration::from_secs(120);

/// What a source's answer means, as the source's own file reads it.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    Answer(T),
    NotOffered,
    /// Too many requests, whatever the status said.
    Limited(String),
    /// We, or all of us behind one address, are shut out.
    Banned(String),
    /// Trouble that may pass.
    Broken(String),
    /// No answer in time, or only half of one: whoever waits has waited long enough.
    Silent,
    /// It does not want this request, and will not.
    Refused(String),
}

#[cfg(test)]
impl<T> Verdict<T> {
    /// The same verdict over something else, to be compared.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Verdict<U> {
        match self {
            Self::Answer(answer) => Verdict::Answer(map(answer)),
            Self::NotOffered => Verdict::NotOffered,
            Self::Limited(why) => Verdict::Limited(why),
            Self::Banned(why) => Verdict::Banned(why),
            Self::Broken(why) => Verdict::Broken(why),
            Self::Silent => Verdict::Silent,
            Self::Refused(why) => Verdict::Refused(why),
        }
    }
}

/// What one source grants and wants.
pub struct Manner {
    pub allowance: Allowance,
    /// How long to stay away when it is too much for it and it does not say.
    pub rest: Duration,
    /// Its key, in its header.
    pub key: Option<(header::HeaderName, header::HeaderValue)>,
}

/// The way to one source. All calls of a process go through one.
pub struct Caller {
    /// Which one.
    pub source: Source,
    /// What time it is.
    pub clock: Clock,
    client: Client,
    base: String,
    manner: Manner,
    budget: Budget,
    circuit: Circuit,
    /// What is counted.
    pub series: Series,
}

/// The client that all sources share.
///
/// # Errors
/// When it cannot be built.
pub fn client() -> Result<Client, Error> {
    Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .timeout(LIMIT)
        // A key goes where it was meant to go, and no source of ours moves.
        .redirect(redirect::Policy::none())
        .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Error::Internal(format!("HTTP client: {error}")))
}

impl Caller {
    /// Asks this source at `base`.
    pub fn new(source: Source, client: Client, base: &str, clock: Clock, manner: Manner) -> Self {
        let series = Series::of(source);
        let circuit = Circuit::new(series.breaker.clone());
        let budget = Budget::new(manner.allowance);
        Self { source, clock, client, base: base.to_owned(), manner, budget, circuit, series }
    }

    fn later(&self, Shut { after, why }: Shut) -> Trouble {
        Trouble::Later { source_name: self.source, after, why }
    }

    /// Asks for a path with its query; `read` says what the answer means, down to the errors in its body.
    pub async fn get<T>(&self, path: &str, read: impl Fn(StatusCode, &str) -> Verdict<T>) -> Result<T, Trouble> {
        let slow = |_| Err(self.give_up(format!("no answer within {} s", CALL_LIMIT.as_secs())));
        tokio::time::timeout(CALL_LIMIT, self.try_to_get(path, read)).await.unwrap_or_else(slow)
    }

    async fn try_to_get<T>(&self, path: &str, read: impl Fn(StatusCode, &str) -> Verdict<T>) -> Result<T, Trouble> {
        let pass = self.circuit.enter().map_err(|shut| self.later(shut))?;
        let mut tried = 0;
        loop {
            if let Err(after) = self.budget.turn().await {
                return Err(self.later(Shut { after, why: "its budget is used up".into() }));
            }
            // While we waited for our turn, others may have been told to stop.
            self.circuit.paused().map_err(|shut| self.later(shut))?;
            let asked = Instant::now();
            let (verdict, wish) = self.attempt(path, &read).await;
            tried += 1;
            self.count(&verdict, asked.elapsed());
            let again = tried < TRIES && pass == Pass::Whole;
            let wait = match verdict {
                Verdict::Answer(answer) => {
                    self.well();
                    return Ok(answer);
                }
                Verdict::NotOffered => {
                    self.well();
                    return Err(Trouble::NotOffered(self.source));
                }
                Verdict::Refused(why) => {
                    self.well();
                    return Err(Trouble::Failed(self.source, why));
                }
                Verdict::Banned(why) => return Err(self.rest(wish.unwrap_or_default().max(SHORTEST_BAN), why)),
                Verdict::Limited(why) => match wish.unwrap_or(self.manner.rest) {
                    wait if again && wait <= SHORT => wait,
                    wait => return Err(self.rest(wait, why)),
                },
                Verdict::Broken(why) => match wish {
                    Some(wait) if wait > SHORT => return Err(self.rest(wait, why)),
                    wish if again => wish.unwrap_or_default().max(BACKOFF.wait(tried)),
                    _ => return Err(self.give_up(why)),
                },
                Verdict::Silent => return Err(self.give_up("no answer in time".into())),
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn count<T>(&self, verdict: &Verdict<T>, took: Duration) {
        let outcome = match verdict {
            Verdict::Answer(_) => Outcome::Ok,
            Verdict::NotOffered => Outcome::NotOffered,
            Verdict::Limited(_) | Verdict::Banned(_) => Outcome::Limited,
            Verdict::Broken(_) | Verdict::Silent | Verdict::Refused(_) => Outcome::Failed,
        };
        self.series.asked(outcome, took);
    }

    fn well(&self) {
        if self.circuit.answered() {
            tracing::info!(provider = %self.source, "answers again");
        }
    }

    /// Nobody asks for this time. The source lives, so its breaker closes.
    fn rest(&self, time: Duration, why: String) -> Trouble {
        self.well();
        self.circuit.pause(time, &why);
        tracing::warn!(provider = %self.source, seconds = time.as_secs(), why, "left alone");
        self.later(Shut { after: time, why })
    }

    fn give_up(&self, why: String) -> Trouble {
        if self.circuit.failed() {
            tracing::warn!(provider = %self.source, why, "keeps failing; asked seldom until it answers");
        }
        Trouble::Failed(self.source, why)
    }

    /// One request; and how long the source wants to be left alone.
    async fn attempt<T>(
        &self,
        path: &str,
        read: impl Fn(StatusCode, &str) -> Verdict<T>,
    ) -> (Verdict<T>, Option<Duration>) {
        let mut request = self.client.get(format!("{}/{path}", self.base)).header(header::ACCEPT, "application/json");
        if let Some((name, key)) = &self.manner.key {
            request = request.header(name, key);
        }
        let response = match send(request, self.source.as_str()).await {
            Ok(response) => response,
            Err(error) => return (unreachable(error), None),
        };
        let (status, wish) = (response.status(), retry_after(response.headers()));
        let verdict = match body(response).await {
            Ok(body) => judge(status, &body, read),
            Err(verdict) => verdict,
        };
        (verdict, wish)
    }
}

/// Without the URL, which an operator may have put a password into.
fn unreachable<T>(error: reqwest::Error) -> Verdict<T> {
    if error.is_timeout() { Verdict::Silent } else { Verdict::Broken(error.without_url().to_string()) }
}

/// The text of an answer, unless it is more than any source sends.
async fn body<T>(mut response: Response) -> Result<String, Verdict<T>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if bytes.len() + chunk.len() > LARGEST {
            return Err(Verdict::Broken(format!("its answer is longer than {LARGEST} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| Verdict::Broken("its answer is no text".into()))
}

/// What a status means at every source; the rest is the source's own.
fn judge<T>(status: StatusCode, body: &str, read: impl Fn(StatusCode, &str) -> Verdict<T>) -> Verdict<T> {
    let text = || format!("it answered {}", status.as_u16());
    match status {
        StatusCode::TOO_MANY_REQUESTS => Verdict::Limited(text()),
        // Binance's ban, and a firewall in front of any of them.
        StatusCode::IM_A_TEAPOT | StatusCode::FORBIDDEN | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
            Verdict::Banned(text())
        }
        StatusCode::REQUEST_TIMEOUT => Verdict::Broken(text()),
        status if status.is_server_error() => Verdict::Broken(text()),
        status if status.is_success() || status.is_client_error() => read(status, body),
        _ => Verdict::Refused(text()),
    }
}
