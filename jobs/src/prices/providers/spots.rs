//! Present prices as providers report them, validated one by one, so that an invalid price loses no other.

use bigdecimal::BigDecimal;
use futures_util::{StreamExt, stream};
use time::OffsetDateTime;

use super::{ProviderError, Spots, client::ProviderClient};
use crate::prices::{
    model::{AssetId, Spot},
    normalise::{RejectReason, check_spot_time},
};

/// Concurrent calls, when each asset needs its own. With more, the last one would wait too long for the rate limiter.
const AT_ONCE: usize = 4;

/// A present price as its provider reports it, with the time of the provider. `None` when the provider has no price of
/// the asset.
pub type ReportedPrice = Result<Option<(BigDecimal, OffsetDateTime)>, RejectReason>;

/// Validates and adds reported prices.
pub fn add_reported(
    client: &ProviderClient,
    spots: &mut Spots,
    reported: impl IntoIterator<Item = (AssetId, ReportedPrice)>,
) {
    let (now, provider) = (client.clock.now(), client.provider);
    for (asset, price) in reported {
        let spot = price.and_then(|price| {
            let Some((price, as_of)) = price else { return Ok(None) };
            check_spot_time(as_of, now).map(|()| Some(Spot { price, as_of, provider }))
        });
        match spot {
            Ok(Some(spot)) => spots.found.push((asset, spot)),
            Ok(None) => {}
            Err(reason) => {
                client.metrics.record_rejected_row(reason);
                tracing::warn!(%provider, %asset, %reason, "rejected a present price");
                let error = ProviderError::Failed(provider, format!("invalid price of {asset}: {reason}"));
                spots.failed.push((asset, error));
            }
        }
    }
}

/// Calls the provider once per asset, several calls at a time.
pub async fn fetch_one_by_one<F>(
    client: &ProviderClient,
    pairs: Vec<(AssetId, String)>,
    fetch: impl Fn(String) -> F + Sync,
) -> Spots
where
    F: Future<Output = Result<ReportedPrice, ProviderError>>,
{
    let calls = pairs.into_iter().map(|(asset, pair)| {
        let call = fetch(pair);
        async move { (asset, call.await) }
    });
    let results: Vec<_> = stream::iter(calls).buffer_unordered(AT_ONCE).collect().await;
    let mut spots = Spots::default();
    for (asset, result) in results {
        match result {
            Ok(price) => add_reported(client, &mut spots, [(asset, price)]),
            Err(ProviderError::NotOffered(_)) => {}
            Err(error) => spots.failed.push((asset, error)),
        }
    }
    spots
}
