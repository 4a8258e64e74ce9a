//! A source of prices that does what its test says.

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

/// How it answers.
#[derive(Debug, Clone, Default)]
pub enum Mood {
    #[default]
    Serves,
    /// Has nothing in this currency.
    Lacks(&'static str),
    Down,
    Later(Duration),
    /// Never answers.
    Hangs,
}

/// A call: of which currency, from when, up to when.
pub type Call = (String, OffsetDateTime, OffsetDateTime);

#[derive(Default)]
struct State {
    mood: Mood,
    prices: BTreeMap<OffsetDateTime, u32>,
    rejects: Vec<String>,
    calls: Vec<Call>,
}

/// Kraken by name; the same prices for every asset and in every currency.
#[derive(Clone, Default)]
pub struct Kraken(Arc<Mutex<State>>);

impl Kraken {
    pub fn providers(&self) -> Providers {
        Providers(Arc::from([Arc::new(self.clone()) as Arc<dyn Provider>]))
    }

    pub fn is(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    pub fn price(&self, bucket: OffsetDateTime, price: u32) {
        self.0.lock().unwrap().prices.insert(bucket, price);
    }

    pub fn rejects(&self, reason: &str) {
        self.0.lock().unwrap().rejects.push(reason.to_owned());
    }

    /// The calls since this was last asked.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }
}

impl Provider for Kraken {
    fn id(&self) -> ProviderId {
        ProviderId::Kraken
    }

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        let page = async move {
            let answer = {
                let mut state = self.0.lock().unwrap();
                state.calls.push((series.currency.as_str().to_owned(), from, to));
                match &state.mood {
                    Mood::Hangs => None,
                    Mood::Lacks(currency) if series.currency.as_str() == *currency => {
                        Some(Err(ProviderError::NotOffered(ProviderId::Kraken)))
                    }
                    Mood::Serves | Mood::Lacks(_) => {
                        let candle = |(bucket, price): (&OffsetDateTime, &u32)| Candle {
                            bucket: *bucket,
                            open: None,
                            high: None,
                            low: None,
                            close: (*price).into(),
                            volume: None,
                        };
                        let candles = state.prices.range(from..to).map(candle).collect();
                        Some(Ok(CandlePage { candles, rejected: state.rejects.clone() }))
                    }
                    Mood::Down => Some(Err(ProviderError::Failed(ProviderId::Kraken, "connection refused".into()))),
                    Mood::Later(after) => Some(Err(ProviderError::RetryLater {
                        provider: ProviderId::Kraken,
                        after: *after,
                        reason: "429".into(),
                    })),
                }
            };
            match answer {
                Some(answer) => answer,
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
