//! Prices as the wire shows them, and what may be asked for.

use std::collections::HashSet;

use jobs::{
    decimal::Whole,
    prices::{
        model::{AssetId, Currency, Interval, Series},
        read::{Chart, Days, Quote},
    },
};
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    validation::{QueryValue, Wrong, whole_in_text},
    wire::{Timestamp, answer_only},
};

/// How many assets one request may ask for.
const MOST_ASSETS: usize = 50;
/// The most days that may be asked for by number.
const MOST_DAYS: u16 = 3650;

/// `{"bitcoin":{"usd":"103663.12","as_of":…,"source":"coingecko"},…}`
pub struct SimplePrices {
    pub currency: Currency,
    pub quotes: Vec<(AssetId, Quote)>,
}

impl Serialize for SimplePrices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = |(asset, quote)| (AssetId::as_str(asset), Shown { currency: self.currency.as_str(), quote });
        serializer.collect_map(self.quotes.iter().map(|(asset, quote)| shown((asset, quote))))
    }
}

/// One price of [`SimplePrices`].
struct Shown<'a> {
    currency: &'a str,
    quote: &'a Quote,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry(self.currency, &self.quote.price)?;
        map.serialize_entry("as_of", &Timestamp(self.quote.as_of))?;
        map.serialize_entry("source", &self.quote.provider)?;
        map.end()
    }
}

answer_only!(SimplePrices, "SimplePrices", {
    let quote = MetaSchema {
        description: Some("The price under the currency's name, as exact decimal text."),
        required: vec!["as_of", "source"],
        properties: vec![
            ("as_of", described(MetaSchema::new_with_format("string", "date-time"), "The time of the price.")),
            ("source", described(MetaSchema::new("string"), "Who it is from.")),
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
    days: Chosen,
    prices: Box<serde_json::value::RawValue>,
}

impl MarketChart {
    /// A chart as it was asked for.
    pub fn new(series: Series, days: Chosen, chart: Chart) -> Self {
        let Series { asset, currency, interval } = series;
        Self { asset, currency, interval, days, prices: chart.prices }
    }
}

answer_only!(MarketChart, "MarketChart", {
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
        description: Some("What an asset has cost."),
        required: vec!["asset", "currency", "interval", "days", "prices"],
        properties: vec![
            ("asset", inline(MetaSchema::new("string"))),
            ("currency", inline(MetaSchema::new("string"))),
            ("interval", inline(Frequency::schema())),
            ("days", described(days, "As they were asked for: a number, or `max`.")),
            (
                "prices",
                described(
                    prices,
                    "When each day or hour began, in milliseconds of Unix time, and the price at its end as exact decimal text.",
                ),
            ),
        ],
        ..MetaSchema::new("object")
    }
});

fn inline(schema: MetaSchema) -> MetaSchemaRef {
    MetaSchemaRef::Inline(Box::new(schema))
}

fn described(schema: MetaSchema, description: &'static str) -> MetaSchemaRef {
    inline(MetaSchema { description: Some(description), ..schema })
}

fn asset(text: &str) -> Result<AssetId, Wrong> {
    let rule = "an asset's id has 1 to 64 lower-case letters, digits and hyphens, such as bitcoin";
    AssetId::parse(text).ok_or_else(|| Wrong::rule(rule))
}

/// The texts of an asset's id, as a pattern.
const ASSET: &str = "[a-z0-9-]{1,64}";

/// One asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset(pub AssetId);

impl QueryValue for Asset {
    const REQUIRED: bool = true;

    fn schema() -> MetaSchema {
        let pattern = Some(format!("^\\s*{ASSET}\\s*$"));
        MetaSchema { example: Some("bitcoin".into()), pattern, ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() { Err(Wrong::too_short(1)) } else { asset(text).map(Self) }
    }
}

/// Several assets, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets(pub Vec<AssetId>);

impl QueryValue for Assets {
    const REQUIRED: bool = true;

    fn schema() -> MetaSchema {
        let pattern = Some(format!("^\\s*{ASSET}\\s*(,\\s*{ASSET}\\s*){{0,{}}}$", MOST_ASSETS - 1));
        MetaSchema { example: Some("bitcoin,ethereum".into()), pattern, ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() {
            return Err(Wrong::too_short(1));
        }
        let (mut assets, mut seen) = (Vec::new(), HashSet::new());
        for text in text.split(',') {
            let asset = asset(text.trim())?;
            if seen.insert(asset.clone()) {
                assets.push(asset);
            }
        }
        if assets.len() > MOST_ASSETS {
            let msg = format!("List should have at most {MOST_ASSETS} items after validation, not {}", assets.len());
            return Err(Wrong::new("too_long", msg).limit("max_length", 50));
        }
        Ok(Self(assets))
    }
}

/// The text of a currency, which the configuration judges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code(pub String);

impl QueryValue for Code {
    const REQUIRED: bool = true;

    fn schema() -> MetaSchema {
        let pattern = Some("^\\s*[A-Za-z0-9]{2,10}\\s*$".into());
        MetaSchema { example: Some("usd".into()), pattern, ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        Ok(Self(text.to_owned()))
    }
}

/// How many days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen(pub Days);

impl Serialize for Chosen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Days::Number(number) => serializer.serialize_u16(number),
            Days::Max => serializer.serialize_str("max"),
        }
    }
}

impl QueryValue for Chosen {
    const REQUIRED: bool = true;

    fn schema() -> MetaSchema {
        let number =
            MetaSchema { minimum: Some(1.0), maximum: Some(f64::from(MOST_DAYS)), ..MetaSchema::new("integer") };
        let max = MetaSchema { enum_items: vec!["max".into()], ..MetaSchema::new("string") };
        MetaSchema { any_of: vec![inline(number), inline(max)], example: Some(30.into()), ..MetaSchema::ANY }
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        if text == "max" {
            return Ok(Self(Days::Max));
        }
        let words = "Input should be a valid integer or 'max', unable to parse string as an integer";
        let number = whole_in_text(text).map_err(|_| Wrong::new("int_parsing", words))?;
        match number {
            Whole::Number(number) if number < 1 => Err(Wrong::below(1)),
            Whole::BelowAll => Err(Wrong::below(1)),
            Whole::Number(number) => match u16::try_from(number) {
                Ok(days @ 1..=MOST_DAYS) => Ok(Self(Days::Number(days))),
                _ => Err(Wrong::above(MOST_DAYS.into())),
            },
            Whole::AboveAll => Err(Wrong::above(MOST_DAYS.into())),
        }
    }
}

/// How far apart prices are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frequency(pub Interval);

impl QueryValue for Frequency {
    fn schema() -> MetaSchema {
        let names = [Interval::Daily, Interval::Hourly].map(|interval| interval.as_str().into());
        MetaSchema { enum_items: names.to_vec(), default: Some("daily".into()), ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let read = Interval::parse(text).map(Self);
        read.ok_or_else(|| Wrong::new("enum", "Input should be 'daily' or 'hourly'"))
    }
}

/// `'usd', 'eur' or 'gbp'`
pub fn either(known: &[Currency]) -> String {
    let quoted: Vec<_> = known.iter().map(|currency| format!("'{currency}'")).collect();
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
    fn assets_are_each_once_and_free_of_blanks() {
        let read = |text: &str| -> Result<Vec<String>, Wrong> {
            Assets::read(text).map(|Assets(assets)| assets.iter().map(AssetId::to_string).collect())
        };
        let expected: Vec<String> = ["solana", "bitcoin", "usd-coin"].map(str::to_owned).to_vec();
        assert_eq!(read("solana, bitcoin ,solana,usd-coin,bitcoin"), Ok(expected));
        for wrong in ["Bitcoin", "bitcoin,", ",", "bit coin", "bitcoin;ethereum", "b\u{131}tcoin"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let many = |count: usize| (0..count).map(|number| format!("a{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(read(&many(50)).map(|assets| assets.len()), Ok(50));
        assert_eq!(
            Assets::read(&many(51)),
            Err(Wrong::new("too_long", "List should have at most 50 items after validation, not 51")
                .limit("max_length", 50))
        );
        let same = "bitcoin,".repeat(60) + "bitcoin";
        assert_eq!(read(&same), Ok(vec!["bitcoin".to_owned()]), "each counts once");
    }

    #[test]
    fn days_are_a_number_or_max() {
        for (text, days) in [("1", 1), ("3650", 3650), ("+30", 30), ("007", 7), ("30.0", 30)] {
            assert_eq!(Chosen::read(text), Ok(Chosen(Days::Number(days))));
        }
        assert_eq!(Chosen::read("max"), Ok(Chosen(Days::Max)));
        for text in ["0", "-1", "-99999999999999999999"] {
            assert_eq!(Chosen::read(text), Err(Wrong::below(1)), "{text}");
        }
        for text in ["3651", "65537", "99999999999999999999"] {
            assert_eq!(Chosen::read(text), Err(Wrong::above(3650)), "{text}");
        }
        for text in ["MAX", "1.5", "ten", "1e3", "-", "٣"] {
            assert!(Chosen::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_listed_in_pydantics_words() {
        let known = |codes: &[&str]| codes.iter().filter_map(|code| Currency::parse(code)).collect::<Vec<_>>();
        assert_eq!(either(&known(&["usd"])), "'usd'");
        assert_eq!(either(&known(&["usd", "eur", "gbp"])), "'usd', 'eur' or 'gbp'");
    }
}
