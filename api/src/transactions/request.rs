//! The webhook's body: fields, limits and schema of a new transaction.

use jobs::transactions::{Amount, AmountError, NewTransaction};
use poem_openapi::registry::MetaSchema;

use crate::{
    schema::any_of,
    validation::{FieldError, RowType, Text, Value, decimal_from_json, parse_string, request},
};

request! {
    /// A new transaction. Unknown fields are ignored.
    #[example({
        "transaction_id": "txn_abc123", "source_account": "acc_user_1", "destination_account": "acc_merchant_1",
        "amount": 1500, "currency": "INR"
    })]
    TransactionRequest for NewTransaction {
        /// The sender's id, unique for each transaction.
        transaction_id: Text<1, 255>,
        /// The account that the money comes from.
        source_account: Text<1, 255>,
        /// The account that the money goes to.
        destination_account: Text<1, 255>,
        /// More than 0, with at most 12 digits before the point and 6 after it. A text stays exact in every client; a
        /// number may have an exponent.
        amount: Amount,
        /// ISO 4217 code.
        currency: Currency,
    }
}

impl RowType for NewTransaction {
    const ID: &'static str = "transaction_id";
    const MAX_ROWS: usize = 1000;
}

/// The pattern of the texts of [`Amount`]s: up to 12 digits before the point, up to 6 after it, not all of them 0.
const AMOUNT_PATTERN: &str = "^([1-9][0-9]{0,11}(\\.[0-9]{1,6})?|0\\.([1-9][0-9]{0,5}|0[1-9][0-9]{0,4}|00[1-9][0-9]{0,3}|\
                              000[1-9][0-9]{0,2}|0000[1-9][0-9]?|00000[1-9]))$";

impl Value for Amount {
    type Out = Self;

    fn schema() -> MetaSchema {
        let number = MetaSchema {
            minimum: Some(0.000_001),
            maximum: Some(1e12),
            exclusive_maximum: Some(true),
            ..MetaSchema::new("number")
        };
        let text = MetaSchema { pattern: Some(AMOUNT_PATTERN.into()), ..MetaSchema::new("string") };
        any_of([number, text])
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        decimal_from_json(raw, |text| {
            text.parse().map_err(|error| match error {
                AmountError::NotDecimal => FieldError::new("decimal_parsing", "Input should be a valid decimal"),
                AmountError::NotFinite => FieldError::not_finite(),
                AmountError::NotPositive => {
                    FieldError::new("greater_than", "Input should be greater than 0").with("gt", 0)
                }
                AmountError::TooManyDigits => {
                    FieldError::new("decimal_max_digits", "Decimal input should have no more than 18 digits in total")
                        .with("max_digits", 18)
                }
                AmountError::TooManyPlaces => FieldError::too_many_places(6),
                AmountError::TooManyWholeDigits => FieldError::too_many_whole_digits(12),
            })
        })
    }
}

/// A current ISO 4217 code.
struct Currency;

impl Currency {
    fn is_code(text: &str) -> bool {
        // The crate marks VES as superseded by VED, but both are in ISO 4217, as codes of the same bolívar.
        iso_currency::Currency::from_code(text)
            .is_some_and(|currency| currency.is_superseded().is_none() || text == "VES")
    }
}

impl Value for Currency {
    type Out = String;

    /// The pattern lists all codes, so that clients can check a code before they send it.
    fn schema() -> MetaSchema {
        let letters = || 'A'..='Z';
        let texts =
            letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| String::from_iter([a, b, c]))));
        let codes: Vec<String> = texts.filter(|text| Self::is_code(text)).collect();
        MetaSchema { pattern: Some(format!("^({})$", codes.join("|"))), ..MetaSchema::new("string") }
    }

    fn read(raw: &str) -> Result<String, FieldError> {
        let text = parse_string(raw).ok_or_else(FieldError::not_a_string)??;
        if !Self::is_code(&text) {
            return Err(FieldError::value_error("currency must be an ISO 4217 code, such as INR"));
        }
        Ok(text.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;
    use crate::validation::FromJsonBody as _;

    #[test]
    fn parses_amounts_without_floats() {
        for (raw, expected) in [
            ("1500", "1500"),
            ("1500.00", "1500.00"),
            ("\" 0.000001 \"", "0.000001"),
            ("999999999999.999999", "999999999999.999999"),
            ("1.5e3", "1500"),
            ("\"1_000\"", "1000"),
            (&format!("1.{}", "0".repeat(70)), "1.000000"),
        ] {
            assert_eq!(Amount::read(raw).map(|amount| amount.to_string()), Ok(expected.to_owned()), "{raw}");
        }
        for (raw, expected) in [
            ("true", "decimal_type"),
            ("null", "decimal_type"),
            ("[1]", "decimal_type"),
            ("{}", "decimal_type"),
            ("\"\"", "decimal_parsing"),
            ("\"abc\"", "decimal_parsing"),
            ("\"NaN\"", "finite_number"),
            ("0", "greater_than"),
            ("-5", "greater_than"),
            ("0.0000001", "decimal_max_places"),
            ("1000000000000", "decimal_whole_digits"),
            ("1234567890123456789", "decimal_max_digits"),
            ("1e999999999", "decimal_max_digits"),
        ] {
            let error = Amount::read(raw).expect_err(raw);
            assert!(format!("{error:?}").contains(&format!("\"{expected}\"")), "{raw}: {error:?}");
        }
    }

    #[test]
    fn accepts_only_current_currency_codes() {
        for code in ["INR", "EUR", "USD", "VES", "VED"] {
            assert_eq!(Currency::read(&format!("\"{code}\"")), Ok(code.into()));
        }
        for code in ["inr", "HRK", "ZZZ", "", "EURO", " EUR"] {
            assert!(Currency::read(&format!("\"{code}\"")).is_err(), "{code}");
        }
        let pattern = Currency::schema().pattern.unwrap_or_default();
        assert!(pattern.contains("|INR|") && pattern.contains("|VES|") && !pattern.contains("HRK"), "{pattern}");
        assert_eq!(Currency::read("356"), Err(FieldError::not_a_string()));
    }

    #[test]
    fn hostile_webhooks_are_refused_or_have_valid_fields() -> Result<(), hostile::Failure> {
        let field = "\"(transaction_id|source_account|destination_account|amount|currency)\":(\"[A-Za-z0-9]{0,3}\"|[0-9]{1,3}|null|\\{\\})";
        let grammar =
            hostile::proptest::string::string_regex(&format!("\\{{{field}(,{field}){{0,5}}\\}}")).expect("a pattern");
        let corpus = include_str!("../../../tests/corpora/webhook.txt");
        hostile::check_bytes(corpus, grammar.prop_map(String::into_bytes), |body| {
            let Ok(webhook) = NewTransaction::parse(body) else { return Ok(()) };
            let text = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
            let value: serde_json::Value = serde_json::from_slice(text).expect("JSON");
            for (name, read) in [
                ("transaction_id", &webhook.transaction_id),
                ("source_account", &webhook.source_account),
                ("destination_account", &webhook.destination_account),
                ("currency", &webhook.currency),
            ] {
                prop_assert_eq!(value[name].as_str(), Some(read.as_str()), "{}", name);
                prop_assert!((1..=255).contains(&read.chars().count()) && !read.contains('\0'), "{}", name);
            }
            prop_assert!(webhook.currency.len() == 3 && webhook.currency.bytes().all(|byte| byte.is_ascii_uppercase()));
            prop_assert!(webhook.amount.to_string().parse() == Ok(webhook.amount.clone()));
            // Of two values for one key, it is unknown which one the sender means.
            let end = body.iter().rposition(|byte| *byte == b'}').expect("an object");
            let doubled = [&body[..end], br#","currency":"USD"}"#].concat();
            prop_assert!(NewTransaction::parse(&doubled).is_err(), "a duplicate key");
            Ok(())
        })
    }
}
