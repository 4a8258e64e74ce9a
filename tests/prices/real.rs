//! API processes' worth of prices with the real providers, over a stand-in of all of them that goes by one clock.

use jobs::{
    config::EnvReader,
    prices::{Config, ages::Ages, model::Source, providers::Providers},
};

use super::stand::{Node, Stand};
use crate::harness::fake_providers::{FakeProviders, Fault};

pub const ALL: &str = "coingecko,kraken,coinbase,binance";

/// A database, a clock and a stand-in.
pub struct RealProviders {
    pub stand: Stand,
    pub exchange: FakeProviders,
}

impl RealProviders {
    pub async fn new() -> Self {
        let stand = Stand::new().await;
        let exchange = FakeProviders::with_clock(stand.market.clock()).await;
        Self { stand, exchange }
    }

    /// A process that has just started, with these providers.
    pub async fn node(&self, names: &str) -> Node {
        let variables = self.exchange.variables();
        let mut pairs: Vec<_> = variables.iter().map(|(name, url)| (*name, url.as_str())).collect();
        pairs.push(("CRYPTO_PROVIDERS", names));
        let mut vars = EnvReader::from_pairs(&pairs);
        let config = Config::read(&mut vars);
        let config = vars.finish(config).expect("a configuration");
        let providers = Providers::start(&config, &self.stand.market.clock()).expect("providers");
        self.stand.node_of(names, providers, None, Ages::SHIPPED).await
    }

    /// A process that has just started, with all providers and nothing stored.
    pub async fn empty_node(&self) -> Node {
        let node = self.node(ALL).await;
        sqlx::query("TRUNCATE prices, spot_prices").execute(&node.pool).await.expect("an empty table");
        node
    }

    /// Has these refuse every call, and no others.
    pub fn fail(&self, sources: impl IntoIterator<Item = Source>) {
        Source::ALL.into_iter().for_each(|source| self.exchange.heal(source));
        sources.into_iter().for_each(|source| self.exchange.fail(source, Fault::Forbidden));
    }
}
