//! A fake of CoinGecko, Kraken, Coinbase and Binance: one server with their endpoints and one table of prices.
//! A test can make it fail in every way in which they fail.
//!
//! ```ignore
//! let providers = FakeProviders::start().await;
//! let api = Api::start(&database.url, &providers.variables()).await;     // COINGECKO_URL and so on
//! providers.fail(ProviderId::CoinGecko, Fault::RateLimited(Some("7")));      // until heal()
//! providers.fail_next(ProviderId::Kraken, 1, Fault::Status(500));            // the next call only
//! assert_eq!(providers.calls(ProviderId::CoinGecko), 1);
//! ```
//!
//! It has bitcoin, ethereum and solana in usd, eur and usdt, as far as the real providers offer them: CoinGecko has no
//! usdt, Binance no usd. Only CoinGecko has `pepecoin`. All providers follow one curve: [`FakeProviders::price`].

mod listing;
mod response;
mod table;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jobs::prices::model::ProviderId;
use poem::{Endpoint, EndpointExt, Request, Response, Server, endpoint::make, http::StatusCode, listener::TcpAcceptor};
use runtime::clock::Clock;
use tokio::task::JoinHandle;

pub(crate) use table::Table;

/// A failure of a provider.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// 429 with this `Retry-After`.
    RateLimited(Option<&'static str>),
    /// 418, Binance's ban, for this many seconds.
    Banned(u32),
    /// 403 and the HTML page of a firewall.
    Forbidden,
    /// This status with a body that is not JSON.
    Status(u16),
    /// 503 with this `Retry-After`.
    Unavailable(&'static str),
    /// 302 to another path.
    Redirect,
    /// 200 and an HTML page.
    Html,
    /// 200 and half of the JSON.
    Truncated,
    /// 200, and the connection closes in the middle of the body.
    Closed,
    /// The correct response after this delay.
    Slow(Duration),
    /// 200 with the provider's form of "too many requests" in the body.
    LimitedWith200,
    /// 200 and a body larger than any provider sends.
    Huge,
    /// One price is not a number, written as the provider writes numbers.
    NotANumber,
    /// One price is negative.
    Negative,
    /// One price is null.
    Null,
    /// One price is `1e999999999`.
    Enormous,
    /// The high and low of one bucket are swapped.
    Inverted,
    /// One time is in microseconds.
    Microseconds,
    /// One time is a few seconds after its bucket's start.
    Misaligned,
    /// The rows are in reverse order.
    Reordered,
    /// One row comes twice.
    Duplicated,
    /// One row comes twice, with different prices.
    Contradicting,
    /// The last ten days are missing, and current prices are a day old.
    Stale,
}

pub(crate) struct State {
    pub table: Table,
    clock: Clock,
    always: HashMap<ProviderId, Fault>,
    next: HashMap<ProviderId, VecDeque<Option<Fault>>>,
    /// Faults for calls whose path contains this text.
    matching: Vec<(ProviderId, &'static str, Fault)>,
    /// `path?query` of every call for prices, without the provider's prefix.
    requests: Vec<(ProviderId, String)>,
    /// The number of calls for a provider's list of assets and pairs. Only `lists_fail` makes these fail.
    lists: HashMap<ProviderId, usize>,
    lists_fail: HashSet<ProviderId>,
    headers: Vec<(ProviderId, poem::http::HeaderMap)>,
}

/// The fake server; dropping it stops the server.
pub(crate) struct FakeProviders {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl FakeProviders {
    /// Starts the fake with the real clock, for real processes.
    pub(crate) async fn start() -> Self {
        Self::with_clock(Clock::system()).await
    }

    /// Starts the fake with this clock.
    pub(crate) async fn with_clock(clock: Clock) -> Self {
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
        let endpoint = endpoint(state.clone());
        let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).expect("an acceptor")).run(endpoint);
        Self { address, state, server: tokio::spawn(async move { server.await.expect("a server") }) }
    }

    /// The base URL of this provider.
    pub(crate) fn url(&self, provider: ProviderId) -> String {
        format!("http://{}/{provider}", self.address)
    }

    /// The variables with which a process calls the fake.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let names = ["COINGECKO_URL", "KRAKEN_URL", "COINBASE_URL", "BINANCE_URL"];
        names.into_iter().zip(ProviderId::ALL).map(|(name, provider)| (name, self.url(provider))).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Edits the table of prices.
    pub(crate) fn edit_table(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.state().table);
    }

    /// The price of an asset at a time (Unix seconds), the same at every provider.
    pub(crate) fn price(&self, asset: &str, currency: &str, time: i64) -> String {
        self.state().table.price(asset, currency, time).expect("an asset of the table")
    }

    /// The current price of an asset, the same at every provider.
    pub(crate) fn spot(&self, asset: &str, currency: &str) -> String {
        let state = self.state();
        let table = state.table.at(state.clock.now().unix_timestamp());
        table.spot(asset, currency).expect("an asset of the table")
    }

    /// Fails every call to this provider until [`FakeProviders::heal`].
    pub(crate) fn fail(&self, provider: ProviderId, fault: Fault) {
        self.state().always.insert(provider, fault);
    }

    /// Fails the next calls to this provider, after the calls that already have a planned outcome.
    pub(crate) fn fail_next(&self, provider: ProviderId, calls: usize, fault: Fault) {
        self.fail_after(provider, 0, calls, fault);
    }

    /// Serves the next `served` calls to this provider, and fails the following `calls` calls.
    pub(crate) fn fail_after(&self, provider: ProviderId, served: usize, calls: usize, fault: Fault) {
        let mut state = self.state();
        let next = state.next.entry(provider).or_default();
        next.extend(std::iter::repeat_n(None, served));
        next.extend(std::iter::repeat_n(Some(fault), calls));
    }

    /// Fails calls to this provider whose path contains `part`, until [`FakeProviders::heal`].
    pub(crate) fn fail_matching(&self, provider: ProviderId, part: &'static str, fault: Fault) {
        self.state().matching.push((provider, part, fault));
    }

    /// Removes every fault of this provider.
    pub(crate) fn heal(&self, provider: ProviderId) {
        let mut state = self.state();
        state.always.remove(&provider);
        state.next.remove(&provider);
        state.matching.retain(|(other, ..)| *other != provider);
    }

    /// Sets whether calls for this provider's list of assets and pairs fail.
    pub(crate) fn fail_lists(&self, provider: ProviderId, fail: bool) {
        let lists_fail = &mut self.state().lists_fail;
        if fail {
            lists_fail.insert(provider)
        } else {
            lists_fail.remove(&provider)
        };
    }

    /// The number of calls for this provider's list of assets and pairs.
    pub(crate) fn list_calls(&self, provider: ProviderId) -> usize {
        self.state().lists.get(&provider).copied().unwrap_or(0)
    }

    /// The number of calls for this provider's prices.
    pub(crate) fn calls(&self, provider: ProviderId) -> usize {
        self.requests(provider).len()
    }

    /// `path?query` of every call for this provider's prices.
    pub(crate) fn requests(&self, provider: ProviderId) -> Vec<String> {
        let state = self.state();
        state.requests.iter().filter(|(called, _)| *called == provider).map(|(_, request)| request.clone()).collect()
    }

    /// The headers of the last call to this provider.
    pub(crate) fn last_headers(&self, provider: ProviderId) -> poem::http::HeaderMap {
        let state = self.state();
        let last = state.headers.iter().rev().find(|(called, _)| *called == provider);
        last.expect("a call").1.clone()
    }
}

impl Drop for FakeProviders {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn endpoint(state: Arc<Mutex<State>>) -> impl Endpoint + 'static {
    make(move |request: Request| {
        let state = state.clone();
        async move {
            let (prefix, path) = request.uri().path()[1..].split_once('/').unwrap_or_default();
            let Some(provider) = ProviderId::parse(prefix) else {
                return Response::builder().status(StatusCode::NOT_FOUND).finish();
            };
            let query = request.uri().query().unwrap_or_default();
            let list = listing::listing(&state.lock().unwrap().table, provider, path);
            if let Some(list) = list {
                let mut state = state.lock().unwrap();
                *state.lists.entry(provider).or_default() += 1;
                state.headers.push((provider, request.headers().clone()));
                let fails = state.lists_fail.contains(&provider);
                let status = if fails { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
                return Response::builder().status(status).content_type("application/json").body(list);
            }
            let fault = {
                let mut state = state.lock().unwrap();
                state.requests.push((provider, format!("{path}?{query}")));
                state.headers.push((provider, request.headers().clone()));
                let next = state.next.get_mut(&provider).and_then(VecDeque::pop_front);
                let matching = state.matching.iter().find(|(other, part, _)| *other == provider && path.contains(part));
                next.flatten()
                    .or_else(|| matching.map(|(.., fault)| fault.clone()))
                    .or_else(|| state.always.get(&provider).cloned())
            };
            if let Some(Fault::Slow(time)) = fault {
                tokio::time::sleep(time).await;
            }
            let table = {
                let state = state.lock().unwrap();
                state.table.at(state.clock.now().unix_timestamp())
            };
            response::build(&table, provider, path, query, fault.as_ref())
        }
    })
    .map_to_response()
}
