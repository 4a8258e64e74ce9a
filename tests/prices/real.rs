//! API nodes with the real provider clients, over fake HTTP servers and the test clock.

use jobs::prices::{Config, ages::Ages, model::ProviderId, providers::Providers};
use runtime::config::EnvReader;

use super::price_harness::{Node, PATIENT, PriceHarness};
use crate::harness::fake_providers::{FakeProviders, Fault};

pub(super) const ALL: &str = "coingecko,kraken,coinbase,binance";

/// A harness and the fake HTTP servers.
pub(super) struct RealProviders {
    pub harness: PriceHarness,
    pub exchange: FakeProviders,
}

impl RealProviders {
    pub(super) async fn new() -> Self {
        let harness = PriceHarness::new().await;
        let exchange = FakeProviders::with_clock(harness.providers.clock()).await;
        Self { harness, exchange }
    }

    /// Starts a node with these providers.
    pub(super) async fn node(&self, names: &str) -> Node {
        self.node_with(names, PATIENT).await
    }

    async fn node_with(&self, names: &str, ages: Ages) -> Node {
        let variables = self.exchange.variables();
        let mut pairs: Vec<_> = variables.iter().map(|(name, url)| (*name, url.as_str())).collect();
        pairs.push(("CRYPTO_PROVIDERS", names));
        let mut vars = EnvReader::from_pairs(&pairs);
        let config = Config::read(&mut vars);
        let config = vars.finish(config).expect("a configuration");
        let providers = Providers::start(&config, &self.harness.providers.clock()).expect("providers");
        self.harness.node_of(names, providers, None, ages).await
    }

    /// Starts a node with all providers, and empties the tables.
    pub(super) async fn empty_node(&self) -> Node {
        self.empty_node_with(PATIENT).await
    }

    /// Like [`Self::empty_node`], with these limits.
    pub(super) async fn empty_node_with(&self, ages: Ages) -> Node {
        let node = self.node_with(ALL, ages).await;
        sqlx::query("TRUNCATE prices, spot_prices").execute(&node.pool).await.expect("an empty table");
        node
    }

    /// Makes exactly these providers reject every call.
    pub(super) fn fail(&self, ids: impl IntoIterator<Item = ProviderId>) {
        ProviderId::ALL.into_iter().for_each(|id| self.exchange.heal(id));
        ids.into_iter().for_each(|id| self.exchange.fail(id, Fault::Forbidden));
    }
}
