//! Unknown assets: the 404 suggests a known name.

use super::price_harness::PriceHarness;

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
