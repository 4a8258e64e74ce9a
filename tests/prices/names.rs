//! Unknown assets: the 404 suggests a known name.

use jobs::prices::{Config, model::ProviderId, providers::Providers};
use runtime::config::EnvReader;

use super::price_harness::{PATIENT, PriceHarness};
use crate::harness::{fake_providers::FakeProviders, process};

#[tokio::test]
async fn an_unknown_asset_gets_a_suggestion() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    for (asset, expected) in [
        ("btc", "Unknown asset: no source has btc in usd; did you mean bitcoin?"),
        ("etherium", "Unknown asset: no source has etherium in usd; did you mean ethereum?"),
        ("a-coin-of-tomorrow", "Unknown asset: no source has a-coin-of-tomorrow in usd"),
        ("bitcoin", "Unknown asset: no source has bitcoin in usd"),
        ("Bitcoin", "Unknown asset: no source has Bitcoin in usd; did you mean bitcoin?"),
        ("no_such_coin", "Unknown asset: no source has no_such_coin in usd"),
    ] {
        for path in [
            format!("/simple_price?assets={asset}&currency=usd"),
            format!("/market_chart?asset={asset}&currency=usd&days=3"),
        ] {
            let problem = node.get(&path).await.assert_problem(404, &path);
            assert_eq!(problem["detail"], expected, "{path}");
        }
    }
}

/// In the path of a URL, dots alone would lead to another resource of the provider.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_dots_is_unknown_and_never_requested() {
    process::install_tls();
    let (harness, servers) = (PriceHarness::new().await, FakeProviders::start().await);
    let variables = servers.variables();
    let pairs: Vec<(&str, &str)> = variables.iter().map(|(name, url)| (*name, url.as_str())).collect();
    let mut vars = EnvReader::from_pairs(&pairs);
    let config = Config::read(&mut vars);
    let config = vars.finish(config).expect("a configuration");
    let providers = Providers::start(&config, &harness.providers.clock()).expect("providers");
    let node = harness.node_of("coingecko,kraken,coinbase,binance", providers, None, PATIENT).await;
    for asset in [".", "..", "..."] {
        for path in [
            format!("/simple_price?assets={asset}&currency=usd"),
            format!("/market_chart?asset={asset}&currency=usd&days=3"),
            format!("/market_chart?asset={asset}&currency=usd&days=2&interval=hourly"),
        ] {
            let problem = node.get(&path).await.assert_problem(404, &path);
            assert_eq!(problem["detail"], format!("Unknown asset: no source has {asset} in usd"), "{path}");
        }
    }
    for provider in ProviderId::ALL {
        assert_eq!(servers.calls(provider), 0, "{provider}: {:?}", servers.requests(provider));
    }
}
