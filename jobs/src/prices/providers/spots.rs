//! Present prices as providers report them, validated one by one, so that an invalid price loses no other.

use bigdecimal::BigDecimal;
use time::OffsetDateTime;

use super::{
    client::ProviderClient,
    provider::{ProviderError, Spots},
};
use crate::prices::{
    model::{AssetId, BodyHash, Spot},
    normalise::{RejectReason, check_spot_time, parse_price},
};

/// A present price as its provider reports it, with the time of the provider. `None` when the provider has no price of
/// the asset.
pub(super) type ReportedPrice = Result<Option<(BigDecimal, OffsetDateTime)>, RejectReason>;

/// Parses the text of a present price, whose time was parsed before.
pub(super) fn reported(price: &str, as_of: Result<OffsetDateTime, RejectReason>) -> ReportedPrice {
    Ok(Some((parse_price(price)?, as_of?)))
}

/// Validates and adds the reported prices of one response.
pub(super) fn add_reported(
    client: &ProviderClient,
    spots: &mut Spots,
    reported: impl IntoIterator<Item = (AssetId, ReportedPrice)>,
    body_sha256: BodyHash,
) {
    let (now, provider) = (client.clock.now(), client.provider);
    let check = |(price, as_of): (BigDecimal, OffsetDateTime)| {
        check_spot_time(as_of, now).map(|()| Spot { price, as_of, provider, body_sha256: Some(body_sha256) })
    };
    for (asset, price) in reported {
        match price.and_then(|price| price.map(check).transpose()) {
            Ok(spot) => spots.found.extend(spot.map(|spot| (asset, spot))),
            Err(reason) => {
                client.metrics.record_rejected_row(reason);
                tracing::warn!(%provider, %asset, %reason, "rejected a present price");
                let error = ProviderError::Failed(provider, format!("invalid price of {asset}: {reason}"));
                spots.failed.push((asset, error));
            }
        }
    }
}
