//! Each stored price has the hash of the response body that contained it.

use std::collections::HashMap;

use jobs::prices::model::ProviderId;
use sha2::{Digest, Sha256};

use super::{price_harness::Node, real::RealProviders};
use crate::harness::http::send;

const CHART: &str = "asset=bitcoin&currency=eur&days=400";
const PRICES: &str = "/simple_price?assets=bitcoin,ethereum&currency=eur";

impl RealProviders {
    /// The body of each response of a provider, by its hash. The clock stands still, so each request is repeated.
    async fn bodies(&self, id: ProviderId, node: &Node) -> HashMap<Vec<u8>, String> {
        let mut bodies = HashMap::new();
        for request in self.exchange.requests(id) {
            let body = send(node.client.get(format!("{}/{request}", self.exchange.url(id)))).await.text;
            bodies.insert(Sha256::digest(&body).to_vec(), body);
        }
        bodies
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_price_has_the_hash_of_the_body_that_contained_it() {
    let real = RealProviders::new().await;
    for id in ProviderId::ALL {
        let node = real.node(id.as_str()).await;
        node.chart_with_missing(CHART).await;
        node.read(PRICES).await;
        let query = "SELECT extract(epoch FROM bucket)::bigint, body_sha256 FROM prices WHERE source = $1";
        let closes: Vec<(i64, Vec<u8>)> =
            sqlx::query_as(query).bind(id.as_str()).fetch_all(&node.pool).await.expect("a hash in each row");
        let query = "SELECT asset, body_sha256 FROM spot_prices WHERE source = $1";
        let spots: Vec<(String, Vec<u8>)> =
            sqlx::query_as(query).bind(id.as_str()).fetch_all(&node.pool).await.expect("a hash in each row");
        assert!(closes.len() >= 300 && spots.len() == 2, "{id}: {} closes, {spots:?}", closes.len());

        let bodies = real.bodies(id, &node).await;
        for (bucket, hash) in closes {
            // CoinGecko has the time of the price, which is the end of the bucket.
            let time = if id == ProviderId::CoinGecko { bucket + 86_400 } else { bucket };
            let body = bodies.get(&hash).expect("a response with this hash");
            assert!(body.contains(&time.to_string()), "{id} {time}: {body}");
        }
        for (asset, hash) in spots {
            let price = real.exchange.spot(&asset, "eur");
            let body = bodies.get(&hash).expect("a response with this hash");
            assert!(body.contains(&price), "{id} {asset} {price}: {body}");
        }
        node.stop().await;
    }
}
