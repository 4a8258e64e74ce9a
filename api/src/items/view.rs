//! Items on the wire.

use jobs::{items, items::Contents};
use poem_openapi::{Object, types::Example};
use serde::Serialize;

use crate::{
    validation::{Fields, FromBody, Wrong},
    wire::Timestamp,
};

/// An item as it stands.
#[derive(Object, Serialize)]
#[oai(rename = "Item")]
pub struct Item {
    /// Never given twice.
    id: i64,
    title: String,
    #[oai(nullable)]
    description: Option<String>,
    /// In hundredths of the currency that owner and buyer agree on.
    #[oai(nullable)]
    price_cents: Option<i64>,
    /// The `id` of the owner.
    owner_id: i64,
    owner: Owner,
    /// When it was created.
    created_at: Timestamp,
    /// When it was last changed.
    updated_at: Timestamp,
}

/// Whom an item belongs to.
#[derive(Object, Serialize)]
#[oai(rename = "ItemOwner")]
pub struct Owner {
    id: i64,
    full_name: String,
}

impl From<&items::Item> for Item {
    fn from(from: &items::Item) -> Self {
        Self {
            id: from.id.0,
            title: from.title.clone(),
            description: from.description.clone(),
            price_cents: from.price_cents,
            owner_id: from.owner.id,
            owner: Owner { id: from.owner.id, full_name: from.owner.full_name.clone() },
            created_at: Timestamp(from.created_at),
            updated_at: Timestamp(from.updated_at),
        }
    }
}

/// An item as its owner describes it. Unknown fields are ignored.
#[derive(Object)]
#[oai(example)]
pub struct ItemRequest {
    /// What it is called; at least one character that can be seen.
    #[oai(validator(min_length = 1, max_length = 255))]
    title: String,
    /// More about it.
    #[oai(nullable, validator(max_length = 10000))]
    description: Option<String>,
    /// 0 or more; may also be a string.
    #[oai(nullable, validator(minimum(value = "0")))]
    price_cents: Option<i64>,
    /// The caller, who is the owner whether said or not; anybody else is a 403.
    #[oai(nullable)]
    owner_id: Option<i64>,
}

impl Example for ItemRequest {
    fn example() -> Self {
        Self {
            title: "Blue bicycle".into(),
            description: Some("Three gears, two years old.".into()),
            price_cents: Some(12_500),
            owner_id: None,
        }
    }
}

/// What a body says.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub contents: Contents,
    pub owner_id: Option<i64>,
}

impl FromBody for Said {
    type Schema = ItemRequest;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let title = fields.visible_text("title", 1..=255);
        let description = fields.optional_text("description", 0..=10_000);
        let price_cents = fields.optional_integer("price_cents", 0..=i64::MAX);
        let owner_id = fields.optional_integer("owner_id", i64::MIN..=i64::MAX);
        let contents = Contents { title: title?, description: description?, price_cents: price_cents? };
        Some(Self { contents, owner_id: owner_id? })
    }
}

/// Reads the id in a path: `None` for a number that no item can have.
///
/// # Errors
/// What is wrong with one that is no number.
pub fn id(text: &str) -> Result<Option<items::ItemId>, Wrong> {
    let trimmed = text.trim();
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::new("int_parsing", "Input should be a valid integer, unable to parse string as an integer"));
    }
    Ok(trimmed.parse().ok().filter(|id| *id > 0).map(items::ItemId))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers() {
        for (text, expected) in
            [("7", Some(7)), (" 7 ", Some(7)), ("0", None), ("-1", None), ("99999999999999999999", None)]
        {
            assert_eq!(id(text), Ok(expected.map(items::ItemId)), "{text}");
        }
        for text in ["", "x", "7x", "1.0", "--1", "\0"] {
            assert!(id(text).is_err(), "{text}");
        }
    }
}
