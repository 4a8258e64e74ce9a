//! A fake price provider under Kraken's name, controlled by its test.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream};
use jobs::prices::{
    model::{AssetId, Candle, Currency, ProviderId, Series},
    providers::{CandlePage, Names, Pages, Provider, ProviderError, Providers, Spots},
};
use time::OffsetDateTime;

/// How the fake provider responds.
#[derive(Debug, Clone, Default)]
pub(super) enum FakeMode {
    #[default]
    Works,
    /// Does not offer this currency.
    WithoutCurrency(&'static str),
    Down,
    /// Asks to be called again after this time.
    RetryAfter(Duration),
    /// Never responds.
    Hangs,
}

/// One call: currency, start and end of the range.
pub(super) type Call = (String, OffsetDateTime, OffsetDateTime);

#[derive(Default)]
struct State {
    mode: FakeMode,
    prices: BTreeMap<OffsetDateTime, u32>,
    rejected: Vec<String>,
    calls: Vec<Call>,
    /// The number of responses, each of which has its own hash.
    responses: u8,
}

/// Has the same prices for every asset and in every currency.
#[derive(Clone, Default)]
pub(super) struct FakeKraken(Arc<Mutex<State>>);

impl FakeKraken {
    pub(super) fn providers(&self) -> Providers {
        Providers(Arc::from([Arc::new(self.clone()) as Arc<dyn Provider>]))
    }

    pub(super) fn set_mode(&self, mode: FakeMode) {
        self.0.lock().unwrap().mode = mode;
    }

    pub(super) fn set_price(&self, bucket: OffsetDateTime, price: u32) {
        self.0.lock().unwrap().prices.insert(bucket, price);
    }

    /// Every response reports one row more as rejected.
    pub(super) fn add_rejected_row(&self, reason: &str) {
        self.0.lock().unwrap().rejected.push(reason.to_owned());
    }

    /// Returns the calls since the last call of this function.
    pub(super) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }
}

impl Provider for FakeKraken {
    fn id(&self) -> ProviderId {
        ProviderId::Kraken
    }

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        let page = async move {
            let response = {
                let mut state = self.0.lock().unwrap();
                state.calls.push((series.currency.as_str().to_owned(), from, to));
                state.responses += 1;
                match &state.mode {
                    FakeMode::Hangs => None,
                    FakeMode::WithoutCurrency(currency) if series.currency.as_str() == *currency => {
                        Some(Err(ProviderError::NotOffered(ProviderId::Kraken)))
                    }
                    FakeMode::Works | FakeMode::WithoutCurrency(_) => {
                        let candle = |(bucket, price): (&OffsetDateTime, &u32)| Candle {
                            bucket: *bucket,
                            open: None,
                            high: None,
                            low: None,
                            close: (*price).into(),
                            volume: None,
                            body_sha256: Some([state.responses; 32]),
                        };
                        let candles = state.prices.range(from..to).map(candle).collect();
                        Some(Ok(CandlePage { candles, rejected: state.rejected.clone() }))
                    }
                    FakeMode::Down => Some(Err(ProviderError::Failed(ProviderId::Kraken, "connection refused".into()))),
                    FakeMode::RetryAfter(after) => Some(Err(ProviderError::RetryLater {
                        provider: ProviderId::Kraken,
                        after: *after,
                        reason: "429".into(),
                    })),
                }
            };
            match response {
                Some(response) => response,
                None => std::future::pending().await,
            }
        };
        stream::once(page).boxed()
    }

    fn spots<'a>(&'a self, _: &'a [AssetId], _: &'a Currency) -> BoxFuture<'a, Spots> {
        Box::pin(async { Spots::default() })
    }

    fn names(&self) -> BoxFuture<'_, Result<Names, ProviderError>> {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let names = Names { assets: set(&["bitcoin", "ethereum"]), currencies: set(&["usd", "eur"]) };
        Box::pin(async { Ok(names) })
    }
}
