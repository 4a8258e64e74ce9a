//! Present prices as providers report them: checked one by one, so that a wrong one spoils no other.

use bigdecimal::BigDecimal;
use futures_util::{StreamExt, stream};
use time::OffsetDateTime;

use super::{Spots, Trouble, caller::Caller};
use crate::prices::{
    model::{AssetId, Spot},
    normalise::{Reason, present},
};

/// Calls at once, where each asset needs a call of its own: with more, the last would wait too long for its turn.
const AT_ONCE: usize = 4;

/// A present price as its provider reports it, with the provider's own time. `None` when the provider has no price of
/// the asset.
pub type ReportedPrice = Result<Option<(BigDecimal, OffsetDateTime)>, Reason>;

/// Adds what a provider reports of assets.
pub fn add(caller: &Caller, spots: &mut Spots, reported: impl IntoIterator<Item = (AssetId, ReportedPrice)>) {
    let (now, source) = (caller.clock.now(), caller.source);
    for (asset, price) in reported {
        let spot = price.and_then(|price| {
            let Some((price, as_of)) = price else { return Ok(None) };
            present(as_of, now).map(|()| Some(Spot { price, as_of, source }))
        });
        match spot {
            Ok(Some(spot)) => spots.found.push((asset, spot)),
            Ok(None) => {}
            Err(reason) => {
                caller.series.rejected(reason);
                tracing::warn!(provider = %source, %asset, %reason, "a present price rejected");
                let trouble = Trouble::Failed(source, format!("its price of {asset} cannot be used: {reason}"));
                spots.failed.push((asset, trouble));
            }
        }
    }
}

/// Asks for each asset by itself, several at once.
pub async fn one_by_one<F>(caller: &Caller, pairs: Vec<(AssetId, String)>, ask: impl Fn(String) -> F + Sync) -> Spots
where
    F: Future<Output = Result<ReportedPrice, Trouble>>,
{
    let calls = pairs.into_iter().map(|(asset, pair)| {
        let call = ask(pair);
        async move { (asset, call.await) }
    });
    let answers: Vec<_> = stream::iter(calls).buffer_unordered(AT_ONCE).collect().await;
    let mut spots = Spots::default();
    for (asset, answer) in answers {
        match answer {
            Ok(price) => add(caller, &mut spots, [(asset, price)]),
            Err(Trouble::NotOffered(_)) => {}
            Err(trouble) => spots.failed.push((asset, trouble)),
        }
    }
    spots
}
