//! A stand-in for CoinGecko, Kraken, Coinbase and Binance: one server with their endpoints, over one table of prices,
//! that can be told to fail in every way in which they do.
//!
//! ```ignore
//! let exchange = Exchange::start().await;
//! let api = Api::start(&database.url, &exchange.variables()).await;      // COINGECKO_URL and so on
//! exchange.fail(ProviderId::CoinGecko, Fault::RateLimited(Some("7")));       // until heal()
//! exchange.fail_next(ProviderId::Kraken, 1, Fault::Status(500));             // the next call only
//! assert_eq!(exchange.calls(ProviderId::CoinGecko), 1);
//! ```
//!
//! It has bitcoin, ethereum and solana in usd, eur and usdt, as far as each source really offers them (CoinGecko no
//! usdt, Binance no usd), and `pepecoin` at CoinGecko only. All sources follow one curve: [`Exchange::price`].

mod answer;
mod listing;
mod table;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jobs::{clock::Clock, prices::model::ProviderId};
use poem::{Endpoint, EndpointExt, Request, Response, Server, endpoint::make, http::StatusCode, listener::TcpAcceptor};
use tokio::task::JoinHandle;

pub use table::Table;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// 429, with this `Retry-After`.
    RateLimited(Option<&'static str>),
    /// 418, Binance's ban, for these seconds.
    Banned(u32),
    /// 403 and a page of a firewall.
    Forbidden,
    /// This status, with a text that is no JSON.
    Status(u16),
    /// 503 with this `Retry-After`.
    Unavailable(&'static str),
    /// 302 to elsewhere.
    Redirect,
    /// 200 and a page of HTML.
    Html,
    /// 200 and half of the JSON.
    Truncated,
    /// 200, and the connection ends in the middle of the body.
    Closed,
    /// The right answer, this much later.
    Slow(Duration),
    /// 200 with an error in the body: each source's own form of "too many requests".
    LimitedWith200,
    /// 200 and more than any of them ever sends.
    Huge,
    /// One price is not a number, in the source's own way of writing numbers.
    NotANumber,
    /// One price is below zero.
    Negative,
    /// One price is null.
    Null,
    /// One price is `1e999999999`.
    Enormous,
    /// The highest and the lowest price of one bucket are exchanged.
    Inverted,
    /// One time is in microseconds.
    Microseconds,
    /// One time is a bit off its bucket's start.
    Misaligned,
    /// The rows are not in order.
    Reordered,
    /// One row comes twice.
    Duplicated,
    /// One row comes twice, with two prices.
    Contradicting,
    /// Nothing of the last ten days; present prices are a day old.
    Stale,
}

pub struct State {
    pub table: Table,
    clock: Clock,
    always: HashMap<ProviderId, Fault>,
    next: HashMap<ProviderId, VecDeque<Option<Fault>>>,
    /// Faults of the calls whose path has this in it.
    matching: Vec<(ProviderId, &'static str, Fault)>,
    /// `path?query` of every call for prices, without the prefix of the source.
    requests: Vec<(ProviderId, String)>,
    /// Calls for what a source offers. Faults spare them, except for those of `lists_fail`.
    lists: HashMap<ProviderId, usize>,
    lists_fail: HashSet<ProviderId>,
    headers: Vec<(ProviderId, poem::http::HeaderMap)>,
}

/// The server; it ends with the value.
pub struct Exchange {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Exchange {
    /// A stand-in by the real clock, for real processes.
    pub async fn start() -> Self {
        Self::at(Clock::system()).await
    }

    /// A stand-in by this clock.
    pub async fn at(clock: Clock) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = State {
            table: Table::default(),
            clock,
            always: HashMap::new(),
            next: HashMap::new(),
            matching: Vec::new(),
            requests: Vec::new(),
            lists: HashMap::new(),
            lists_fail: HashSet::new(),
            headers: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let endpoint = answering(state.clone());
        let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).expect("an acceptor")).run(endpoint);
        Self { address, state, server: tokio::spawn(async move { server.await.expect("a server") }) }
    }

    /// Where it stands in for this source.
    pub fn url(&self, source: ProviderId) -> String {
        format!("http://{}/{source}", self.address)
    }

    /// What a process needs to be told to ask it.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let names = ["COINGECKO_URL", "KRAKEN_URL", "COINBASE_URL", "BINANCE_URL"];
        names.into_iter().zip(ProviderId::ALL).map(|(name, source)| (name, self.url(source))).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What prices it has.
    pub fn change(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.state().table);
    }

    /// The price of an asset at a moment (Unix seconds), at every source.
    pub fn price(&self, asset: &str, currency: &str, moment: i64) -> String {
        self.state().table.price(asset, currency, moment).expect("an asset of the table")
    }

    /// The present price of an asset, at every source.
    pub fn spot(&self, asset: &str, currency: &str) -> String {
        let state = self.state();
        let table = state.table.at(state.clock.now().unix_timestamp());
        table.spot(asset, currency).expect("an asset of the table")
    }

    /// Fails every call to this source, until it is healed.
    pub fn fail(&self, source: ProviderId, fault: Fault) {
        self.state().always.insert(source, fault);
    }

    /// Fails the next calls to this source, after those that are to fail already.
    pub fn fail_next(&self, source: ProviderId, calls: usize, fault: Fault) {
        self.fail_after(source, 0, calls, fault);
    }

    /// Serves some calls to this source, and fails those that come then.
    pub fn fail_after(&self, source: ProviderId, served: usize, calls: usize, fault: Fault) {
        let mut state = self.state();
        let next = state.next.entry(source).or_default();
        next.extend(std::iter::repeat_n(None, served));
        next.extend(std::iter::repeat_n(Some(fault), calls));
    }

    /// Fails the calls to this source whose path has this in it, until it is healed.
    pub fn fail_matching(&self, source: ProviderId, part: &'static str, fault: Fault) {
        self.state().matching.push((source, part, fault));
    }

    /// Everything is well again at this source.
    pub fn heal(&self, source: ProviderId) {
        let mut state = self.state();
        state.always.remove(&source);
        state.next.remove(&source);
        state.matching.retain(|(other, ..)| *other != source);
    }

    /// Fails every call for what this source offers, or no more.
    pub fn fail_lists(&self, source: ProviderId, fail: bool) {
        let lists_fail = &mut self.state().lists_fail;
        if fail {
            lists_fail.insert(source)
        } else {
            lists_fail.remove(&source)
        };
    }

    /// How often this source was asked what it offers.
    pub fn lists(&self, source: ProviderId) -> usize {
        self.state().lists.get(&source).copied().unwrap_or(0)
    }

    /// How often this source was asked for prices.
    pub fn calls(&self, source: ProviderId) -> usize {
        self.requests(source).len()
    }

    /// What this source was asked for: `path?query`.
    pub fn requests(&self, source: ProviderId) -> Vec<String> {
        let state = self.state();
        state.requests.iter().filter(|(asked, _)| *asked == source).map(|(_, request)| request.clone()).collect()
    }

    /// The headers of the last call to this source.
    pub fn last_headers(&self, source: ProviderId) -> poem::http::HeaderMap {
        let state = self.state();
        let last = state.headers.iter().rev().find(|(asked, _)| *asked == source);
        last.expect("a call").1.clone()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn answering(state: Arc<Mutex<State>>) -> impl Endpoint + 'static {
    make(move |request: Request| {
        let state = state.clone();
        async move {
            let (prefix, path) = request.uri().path()[1..].split_once('/').unwrap_or_default();
            let Some(source) = ProviderId::parse(prefix) else {
                return Response::builder().status(StatusCode::NOT_FOUND).finish();
            };
            let query = request.uri().query().unwrap_or_default();
            let list = listing::listing(&state.lock().unwrap().table, source, path);
            if let Some(list) = list {
                let mut state = state.lock().unwrap();
                *state.lists.entry(source).or_default() += 1;
                state.headers.push((source, request.headers().clone()));
                let fails = state.lists_fail.contains(&source);
                let status = if fails { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
                return Response::builder().status(status).content_type("application/json").body(list);
            }
            let fault = {
                let mut state = state.lock().unwrap();
                state.requests.push((source, format!("{path}?{query}")));
                state.headers.push((source, request.headers().clone()));
                let next = state.next.get_mut(&source).and_then(VecDeque::pop_front);
                let matching = state.matching.iter().find(|(other, part, _)| *other == source && path.contains(part));
                next.flatten()
                    .or_else(|| matching.map(|(.., fault)| fault.clone()))
                    .or_else(|| state.always.get(&source).cloned())
            };
            if let Some(Fault::Slow(time)) = fault {
                tokio::time::sleep(time).await;
            }
            let table = {
                let state = state.lock().unwrap();
                state.table.at(state.clock.now().unix_timestamp())
            };
            answer::answer(&table, source, path, query, fault.as_ref())
        }
    })
    .map_to_response()
}
