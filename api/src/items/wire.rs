//! Wire types of the items endpoints.

use jobs::{decimal::Whole, items, items::Contents};
use poem_openapi::{
    Object,
    registry::MetaSchema,
    types::{ParseFromParameter, ParseResult},
};
use serde::Serialize;

use crate::{
    validation::{FieldError, Integer, Text, VisibleText, request, whole_from_text},
    wire::{Nullable, Timestamp, openapi_type},
};

/// An item.
#[derive(Object, Serialize)]
#[oai(rename = "Item")]
pub(super) struct Item {
    /// Unique; never reused.
    id: i64,
    title: String,
    description: Nullable<String>,
    /// In hundredths of the currency that owner and buyer agree on.
    price_cents: Nullable<i64>,
    /// The `id` of the owner.
    owner_id: i64,
    owner: Owner,
    /// The time of its creation.
    created_at: Timestamp,
    /// The time of its last change.
    updated_at: Timestamp,
}

/// The owner of an item.
#[derive(Object, Serialize)]
#[oai(rename = "ItemOwner")]
pub(super) struct Owner {
    id: i64,
    full_name: String,
}

impl From<&items::Item> for Item {
    fn from(from: &items::Item) -> Self {
        Self {
            id: from.id.0,
            title: from.title.clone(),
            description: Nullable(from.description.clone()),
            price_cents: Nullable(from.price_cents),
            owner_id: from.owner.id,
            owner: Owner { id: from.owner.id, full_name: from.owner.full_name.clone() },
            created_at: Timestamp(from.created_at),
            updated_at: Timestamp(from.updated_at),
        }
    }
}

request! {
    /// The fields of an item that its owner sets. Unknown fields are ignored.
    #[example({"title": "Blue bicycle", "description": "Three gears, two years old.", "price_cents": 12500})]
    ItemRequest for ItemInput {
        /// The name of the item, with at least one visible character.
        title: VisibleText<1, 255>,
        /// A longer description.
        description: Option<Text<0, 10_000>>,
        /// 0 or more.
        price_cents: Option<Integer<0, { i64::MAX }>>,
        /// The caller's id. The caller is always the owner; another id is a 403.
        owner_id: Option<Integer<{ -i64::MAX }, { i64::MAX }>>,
    } => Ok(Self { contents: Contents { title, description, price_cents }, owner_id })
}

/// The contents of a valid body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ItemInput {
    pub contents: Contents,
    pub owner_id: Option<i64>,
}

/// The id in a path as text. It is parsed in the handler, since a number that no item can have is a 404, not a 422.
#[derive(Debug)]
pub(super) struct ItemIdText(pub String);

openapi_type!(ItemIdText, "integer_int64", MetaSchema::new_with_format("integer", "int64"));

impl ParseFromParameter for ItemIdText {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Ok(Self(value.to_owned()))
    }
}

/// Parses the id in a path; `None` for a number that no item can have.
///
/// # Errors
/// The text is not an integer.
pub(super) fn parse_id(text: &str) -> Result<Option<items::ItemId>, FieldError> {
    let whole = whole_from_text(text)?;
    Ok(match whole {
        Whole::Number(id) if id > 0 => Some(items::ItemId(id)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_ids() {
        for (text, expected) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("7.0", Some(7)),
            ("0", None),
            ("-1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_id(text), Ok(expected.map(items::ItemId)), "{text}");
        }
        for text in ["", "x", "7x", "1.5", "--1", "\0"] {
            assert!(parse_id(text).is_err(), "{text}");
        }
    }
}
