//! Wire types of the price endpoints: responses and query parameters.

use std::collections::HashSet;

use jobs::prices::{
    fetch::EnqueuedFetches,
    model::{AssetId, Currency, Interval, Quote, Series},
    read::{Chart, Days},
};
use poem_openapi::{Object, registry::MetaSchema};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    schema::{any_of, described, inline, list_of, object},
    validation::{Choice, FieldError, FirstOr, Integer, QueryValue, list_names, whole_from_text},
    wire::{Timestamp, openapi_response_type},
};

/// The largest number of assets in one request.
const MAX_ASSETS: usize = 50;
/// The number of days in one request; `max` may exceed it.
type DayCount = Integer<1, 3650, u16>;

/// `{"bitcoin":{"usd":"103663.12","as_of":…,"source":"coingecko"},…}`
pub(super) struct SimplePrices {
    pub currency: Currency,
    pub quotes: Vec<(AssetId, Quote)>,
}

impl Serialize for SimplePrices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let currency = self.currency.as_str();
        serializer
            .collect_map(self.quotes.iter().map(|(asset, quote)| (asset.as_str(), QuoteEntry { currency, quote })))
    }
}

/// One price of [`SimplePrices`].
struct QuoteEntry<'a> {
    currency: &'a str,
    quote: &'a Quote,
}

impl Serialize for QuoteEntry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry(self.currency, &self.quote.price)?;
        map.serialize_entry("as_of", &Timestamp(self.quote.as_of))?;
        map.serialize_entry("source", &self.quote.provider)?;
        map.end()
    }
}

openapi_response_type!(SimplePrices, "SimplePrices", {
    let time = MetaSchema::new_with_format("string", "date-time");
    let fields = [
        ("as_of", described("The time of the price, by its provider.", time)),
        ("source", described("The provider of the price.", MetaSchema::new("string"))),
    ];
    let quote = MetaSchema {
        description: Some("The price as exact decimal text, under the code of the currency."),
        additional_properties: Some(Box::new(inline(MetaSchema::new("string")))),
        ..object(2, fields)
    };
    MetaSchema {
        description: Some("The price of each asset, by its id."),
        additional_properties: Some(Box::new(inline(quote))),
        example: Some(serde_json::json!({
            "bitcoin": {"usd": "103663.12", "as_of": "2026-11-21T15:04:05.000000Z", "source": "coingecko"}
        })),
        ..MetaSchema::new("object")
    }
});

/// `{"asset":…,"currency":…,"interval":…,"days":…,"prices":[[unix_ms,"price"],…]}`
#[derive(Serialize)]
pub(super) struct MarketChart {
    asset: AssetId,
    currency: Currency,
    interval: Interval,
    days: DaysParam,
    prices: Box<serde_json::value::RawValue>,
}

impl MarketChart {
    /// The response with a chart.
    pub(super) fn new(series: Series, days: DaysParam, chart: Chart) -> Self {
        let Series { asset, currency, interval } = series;
        Self { asset, currency, interval, days, prices: chart.prices }
    }
}

openapi_response_type!(MarketChart, "MarketChart", {
    let step = any_of([MetaSchema::new_with_format("integer", "int64"), MetaSchema::new("string")]);
    let point = MetaSchema { min_items: Some(2), max_items: Some(2), ..list_of(step) };
    let example = Some(serde_json::json!([[1_795_132_800_000_i64, "103663.12"]]));
    let prices = MetaSchema { example, ..list_of(point) };
    let days = any_of([MetaSchema::new("integer"), MetaSchema::new("string")]);
    let meaning =
        "The start of each day or hour (Unix time in milliseconds) and the price at its end, as exact decimal text.";
    let fields = [
        ("asset", MetaSchema::new("string")),
        ("currency", MetaSchema::new("string")),
        ("interval", <FirstOr<Interval> as QueryValue>::schema()),
        ("days", described("The days of the request: a number, or `max`.", days)),
        ("prices", described(meaning, prices)),
    ];
    described("The prices of an asset over time.", object(5, fields))
});

fn parse_asset(text: &str) -> Result<AssetId, FieldError> {
    let rule = "an asset's id has 1 to 64 letters, digits, hyphens, underscores and dots, such as bitcoin";
    AssetId::parse(text).ok_or_else(|| FieldError::value_error(rule))
}

/// The pattern of an asset's id.
const ASSET_PATTERN: &str = "[A-Za-z0-9._-]{1,64}";

/// The parameter `asset`.
pub(super) struct Asset;

impl QueryValue for Asset {
    type Out = AssetId;

    fn schema() -> MetaSchema {
        let pattern = Some(format!("^\\s*{ASSET_PATTERN}\\s*$"));
        MetaSchema { example: Some("bitcoin".into()), pattern, ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<AssetId, FieldError> {
        if text.is_empty() { Err(FieldError::too_short(1)) } else { parse_asset(text) }
    }
}

/// The parameter `assets`, without duplicates.
pub(super) struct Assets;

impl QueryValue for Assets {
    type Out = Vec<AssetId>;

    fn schema() -> MetaSchema {
        let pattern = Some(format!("^\\s*{ASSET_PATTERN}\\s*(,\\s*{ASSET_PATTERN}\\s*){{0,{}}}$", MAX_ASSETS - 1));
        MetaSchema { example: Some("bitcoin,ethereum".into()), pattern, ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<Vec<AssetId>, FieldError> {
        if text.is_empty() {
            return Err(FieldError::too_short(1));
        }
        let (mut assets, mut seen) = (Vec::new(), HashSet::new());
        for text in text.split(',') {
            let asset = parse_asset(text.trim())?;
            if seen.insert(asset.clone()) {
                assets.push(asset);
            }
        }
        if assets.len() > MAX_ASSETS {
            let msg = format!("List should have at most {MAX_ASSETS} items after validation, not {}", assets.len());
            return Err(FieldError::new("too_long", msg).with("max_length", 50));
        }
        Ok(assets)
    }
}

/// The parameter `currency`. The handler checks it against the configured whitelist.
pub(super) struct CurrencyCode;

impl QueryValue for CurrencyCode {
    type Out = String;

    fn schema() -> MetaSchema {
        let pattern = Some("^\\s*[A-Za-z0-9]{2,10}\\s*$".into());
        MetaSchema { example: Some("usd".into()), pattern, ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<String, FieldError> {
        Ok(text.to_owned())
    }
}

/// The parameter `days`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DaysParam(pub Days);

impl Serialize for DaysParam {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Days::Number(number) => serializer.serialize_u16(number),
            Days::Max => serializer.serialize_str("max"),
        }
    }
}

impl QueryValue for DaysParam {
    type Out = Self;

    fn schema() -> MetaSchema {
        let max = MetaSchema { enum_items: vec!["max".into()], ..MetaSchema::new("string") };
        MetaSchema { example: Some(30.into()), ..any_of([<DayCount as QueryValue>::schema(), max]) }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        if text == "max" {
            return Ok(Self(Days::Max));
        }
        let msg = "Input should be a valid integer or 'max', unable to parse string as an integer";
        whole_from_text(text).map_err(|_| FieldError::new("int_parsing", msg))?;
        <DayCount as QueryValue>::read(text).map(|days| Self(Days::Number(days)))
    }
}

impl Choice for Interval {
    const ALL: &'static [Self] = &[Self::Daily, Self::Hourly];

    fn name(self) -> &'static str {
        self.as_str()
    }
}

/// The currencies in Pydantic's form: `'usd', 'eur' or 'gbp'`.
pub(super) fn list_currencies(currencies: &[Currency]) -> String {
    match currencies {
        [] => "one that the service is set up for".into(),
        _ => list_names(currencies.iter().map(Currency::as_str)),
    }
}

/// The result of a request for the day's fetch.
#[derive(Debug, Object, Serialize)]
pub(super) struct Fetch {
    /// The day in UTC; its fetch covers the days before it.
    day: String,
    /// The number of fetches enqueued by this request, each of one asset from one provider.
    enqueued: usize,
    /// The number of fetches that existed before.
    already: usize,
}

impl From<EnqueuedFetches> for Fetch {
    fn from(asked: EnqueuedFetches) -> Self {
        Self { day: asked.day.to_string(), enqueued: asked.enqueued, already: asked.already }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assets_have_no_duplicates_and_no_blanks() {
        let read = |text: &str| -> Result<Vec<String>, FieldError> {
            Assets::read(text).map(|assets| assets.iter().map(AssetId::to_string).collect())
        };
        let expected: Vec<String> = ["solana", "bitcoin", "usd-coin"].map(str::to_owned).to_vec();
        assert_eq!(read("solana, bitcoin ,solana,usd-coin,bitcoin"), Ok(expected));
        for text in ["bitcoin,", ",", "bit coin", "bitcoin;ethereum", "b\u{131}tcoin"] {
            assert!(read(text).is_err(), "{text}");
        }
        let many = |count: usize| (0..count).map(|number| format!("a{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(read(&many(50)).map(|assets| assets.len()), Ok(50));
        assert_eq!(
            Assets::read(&many(51)),
            Err(FieldError::new("too_long", "List should have at most 50 items after validation, not 51")
                .with("max_length", 50))
        );
        let same = "bitcoin,".repeat(60) + "bitcoin";
        assert_eq!(read(&same), Ok(vec!["bitcoin".to_owned()]), "duplicates count once");
    }

    #[test]
    fn days_are_a_number_or_max() {
        for (text, days) in [("1", 1), ("3650", 3650), ("+30", 30), ("007", 7), ("30.0", 30)] {
            assert_eq!(DaysParam::read(text), Ok(DaysParam(Days::Number(days))));
        }
        assert_eq!(DaysParam::read("max"), Ok(DaysParam(Days::Max)));
        for text in ["0", "-1", "-99999999999999999999"] {
            assert_eq!(DaysParam::read(text), Err(FieldError::below(1)), "{text}");
        }
        for text in ["3651", "65537", "99999999999999999999"] {
            assert_eq!(DaysParam::read(text), Err(FieldError::above(3650)), "{text}");
        }
        for text in ["MAX", "1.5", "ten", "1e3", "-", "٣"] {
            assert!(DaysParam::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_currencies_in_pydantics_form() {
        let currencies = |codes: &[&str]| codes.iter().filter_map(|code| Currency::parse(code)).collect::<Vec<_>>();
        assert_eq!(list_currencies(&currencies(&["usd"])), "'usd'");
        assert_eq!(list_currencies(&currencies(&["usd", "eur", "gbp"])), "'usd', 'eur' or 'gbp'");
    }
}
