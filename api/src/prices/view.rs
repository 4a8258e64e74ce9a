//! Wire types of the price endpoints: responses and query parameters.

use std::collections::HashSet;

use jobs::{
    decimal::Whole,
    prices::{
        model::{AssetId, Currency, Interval, Quote, Series},
        read::{Chart, Days},
    },
};
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    validation::{FieldError, QueryValue, whole_from_text},
    wire::{Timestamp, openapi_response_type},
};

/// The largest number of assets in one request.
const MAX_ASSETS: usize = 50;
/// The largest number of days in one request; `max` may exceed it.
const MAX_DAYS: u16 = 3650;

/// `{"bitcoin":{"usd":"103663.12","as_of":…,"source":"coingecko"},…}`
pub struct SimplePrices {
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
    let quote = MetaSchema {
        description: Some("The price as exact decimal text, under the code of the currency."),
        required: vec!["as_of", "source"],
        properties: vec![
            (
                "as_of",
                with_description(
                    MetaSchema::new_with_format("string", "date-time"),
                    "The time of the price, by its provider.",
                ),
            ),
            ("source", with_description(MetaSchema::new("string"), "The provider of the price.")),
        ],
        additional_properties: Some(Box::new(inline(MetaSchema::new("string")))),
        ..MetaSchema::new("object")
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
pub struct MarketChart {
    asset: AssetId,
    currency: Currency,
    interval: Interval,
    days: DaysParam,
    prices: Box<serde_json::value::RawValue>,
}

impl MarketChart {
    /// The response with a chart.
    pub fn new(series: Series, days: DaysParam, chart: Chart) -> Self {
        let Series { asset, currency, interval } = series;
        Self { asset, currency, interval, days, prices: chart.prices }
    }
}

openapi_response_type!(MarketChart, "MarketChart", {
    let step = MetaSchema {
        any_of: vec![inline(MetaSchema::new_with_format("integer", "int64")), inline(MetaSchema::new("string"))],
        ..MetaSchema::ANY
    };
    let point = MetaSchema {
        items: Some(Box::new(inline(step))),
        min_items: Some(2),
        max_items: Some(2),
        ..MetaSchema::new("array")
    };
    let prices = MetaSchema {
        items: Some(Box::new(inline(point))),
        example: Some(serde_json::json!([[1_795_132_800_000_i64, "103663.12"]])),
        ..MetaSchema::new("array")
    };
    let days = MetaSchema {
        any_of: vec![inline(MetaSchema::new("integer")), inline(MetaSchema::new("string"))],
        ..MetaSchema::ANY
    };
    MetaSchema {
        description: Some("The prices of an asset over time."),
        required: vec!["asset", "currency", "interval", "days", "prices"],
        properties: vec![
            ("asset", inline(MetaSchema::new("string"))),
            ("currency", inline(MetaSchema::new("string"))),
            ("interval", inline(IntervalParam::schema())),
            ("days", with_description(days, "The days of the request: a number, or `max`.")),
            (
                "prices",
                with_description(
                    prices,
                    "The start of each day or hour (Unix time in milliseconds) and the price at its end, as exact decimal text.",
                ),
            ),
        ],
        ..MetaSchema::new("object")
    }
});

fn inline(schema: MetaSchema) -> MetaSchemaRef {
    MetaSchemaRef::Inline(Box::new(schema))
}

fn with_description(schema: MetaSchema, description: &'static str) -> MetaSchemaRef {
    inline(MetaSchema { description: Some(description), ..schema })
}

fn parse_asset(text: &str) -> Result<AssetId, FieldError> {
    let rule = "an asset's id has 1 to 64 lower-case letters, digits and hyphens, such as bitcoin";
    AssetId::parse(text).ok_or_else(|| FieldError::value_error(rule))
}

/// The pattern of an asset's id.
const ASSET_PATTERN: &str = "[a-z0-9-]{1,64}";

/// The parameter `asset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset(pub AssetId);

impl QueryValue for Asset {
    const REQUIRED: bool = true;

    fn schema() -> MetaSchema {
        let pattern = Some(format!("^\\s*{ASSET_PATTERN}\\s*$"));
        MetaSchema { example: Some("bitcoin".into()), pattern, ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        if text.is_empty() { Err(FieldError::too_short(1)) } else { parse_asset(text).map(Self) }
    }
}

/// The parameter `assets`, without duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets(pub Vec<AssetId>);

impl QueryValue for Assets {
    const REQUIRED: bool = true;

    fn schema() -> MetaSchema {
        let pattern = Some(format!("^\\s*{ASSET_PATTERN}\\s*(,\\s*{ASSET_PATTERN}\\s*){{0,{}}}$", MAX_ASSETS - 1));
        MetaSchema { example: Some("bitcoin,ethereum".into()), pattern, ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
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
            return Err(FieldError::new("too_long", msg).limit("max_length", 50));
        }
        Ok(Self(assets))
    }
}

/// The parameter `currency`. The handler checks it against the configured whitelist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrencyCode(pub String);

impl QueryValue for CurrencyCode {
    const REQUIRED: bool = true;

    fn schema() -> MetaSchema {
        let pattern = Some("^\\s*[A-Za-z0-9]{2,10}\\s*$".into());
        MetaSchema { example: Some("usd".into()), pattern, ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        Ok(Self(text.to_owned()))
    }
}

/// The parameter `days`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaysParam(pub Days);

impl Serialize for DaysParam {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Days::Number(number) => serializer.serialize_u16(number),
            Days::Max => serializer.serialize_str("max"),
        }
    }
}

impl QueryValue for DaysParam {
    const REQUIRED: bool = true;

    fn schema() -> MetaSchema {
        let number =
            MetaSchema { minimum: Some(1.0), maximum: Some(f64::from(MAX_DAYS)), ..MetaSchema::new("integer") };
        let max = MetaSchema { enum_items: vec!["max".into()], ..MetaSchema::new("string") };
        MetaSchema { any_of: vec![inline(number), inline(max)], example: Some(30.into()), ..MetaSchema::ANY }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        if text == "max" {
            return Ok(Self(Days::Max));
        }
        let msg = "Input should be a valid integer or 'max', unable to parse string as an integer";
        let number = whole_from_text(text).map_err(|_| FieldError::new("int_parsing", msg))?;
        match number {
            Whole::Number(number) if number < 1 => Err(FieldError::below(1)),
            Whole::BelowAll => Err(FieldError::below(1)),
            Whole::Number(number) => match u16::try_from(number) {
                Ok(days @ 1..=MAX_DAYS) => Ok(Self(Days::Number(days))),
                _ => Err(FieldError::above(MAX_DAYS.into())),
            },
            Whole::AboveAll => Err(FieldError::above(MAX_DAYS.into())),
        }
    }
}

/// The parameter `interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntervalParam(pub Interval);

impl QueryValue for IntervalParam {
    fn schema() -> MetaSchema {
        let names = [Interval::Daily, Interval::Hourly].map(|interval| interval.as_str().into());
        MetaSchema { enum_items: names.to_vec(), default: Some("daily".into()), ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        let interval = Interval::parse(text).map(Self);
        interval.ok_or_else(|| FieldError::new("enum", "Input should be 'daily' or 'hourly'"))
    }
}

/// The currencies in Pydantic's form: `'usd', 'eur' or 'gbp'`.
pub fn list_currencies(currencies: &[Currency]) -> String {
    let quoted: Vec<_> = currencies.iter().map(|currency| format!("'{currency}'")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "one that the service is set up for".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assets_have_no_duplicates_and_no_blanks() {
        let read = |text: &str| -> Result<Vec<String>, FieldError> {
            Assets::read(text).map(|Assets(assets)| assets.iter().map(AssetId::to_string).collect())
        };
        let expected: Vec<String> = ["solana", "bitcoin", "usd-coin"].map(str::to_owned).to_vec();
        assert_eq!(read("solana, bitcoin ,solana,usd-coin,bitcoin"), Ok(expected));
        for text in ["Bitcoin", "bitcoin,", ",", "bit coin", "bitcoin;ethereum", "b\u{131}tcoin"] {
            assert!(read(text).is_err(), "{text}");
        }
        let many = |count: usize| (0..count).map(|number| format!("a{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(read(&many(50)).map(|assets| assets.len()), Ok(50));
        assert_eq!(
            Assets::read(&many(51)),
            Err(FieldError::new("too_long", "List should have at most 50 items after validation, not 51")
                .limit("max_length", 50))
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
