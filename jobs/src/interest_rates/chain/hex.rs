//! Numbers and bytes of JSON-RPC: hexadecimal text with the prefix `0x`.
//!
//! alloy's own readers also accept an empty text as 0, decimal text, `_` between digits and JSON numbers. A node or proxy
//! that returns such a text is broken, and a nonce of 0 or a successful receipt must not come of it.

use alloy::primitives::{Bytes, Uint, hex};
use serde::{Deserialize, Deserializer, de::Error as _};

/// A number of at most `BITS` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quantity<const BITS: usize, const LIMBS: usize>(pub Uint<BITS, LIMBS>);

/// A number of 64 bits.
pub(super) type Quantity64 = Quantity<64, 1>;
/// A number of 128 bits.
pub(super) type Quantity128 = Quantity<128, 2>;
/// A number of 256 bits.
pub(super) type Quantity256 = Quantity<256, 4>;

impl<'de, const BITS: usize, const LIMBS: usize> Deserialize<'de> for Quantity<BITS, LIMBS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = digits(&text).filter(|digits| !digits.is_empty());
        let number = digits.and_then(|digits| Uint::from_str_radix(digits, 16).ok());
        number.map(Self).ok_or_else(|| D::Error::custom("not a hexadecimal number"))
    }
}

impl Quantity64 {
    pub(super) fn get(self) -> u64 {
        self.0.to()
    }
}

impl Quantity128 {
    pub(super) fn get(self) -> u128 {
        self.0.to()
    }
}

/// Bytes of any number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Data(pub Bytes);

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = digits(&text).and_then(|digits| hex::decode(digits).ok());
        bytes.map(|bytes| Self(bytes.into())).ok_or_else(|| D::Error::custom("not hexadecimal bytes"))
    }
}

/// The digits after the prefix; `None` for anything else.
fn digits(text: &str) -> Option<&str> {
    text.strip_prefix("0x").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn only_hexadecimal_text_is_a_number() {
        let read = |value: Value| from_value::<Quantity64>(value).ok().map(Quantity64::get);
        for (text, number) in [("0x0", 0), ("0x01", 1), ("0xfF", 255), ("0xffffffffffffffff", u64::MAX)] {
            assert_eq!(read(json!(text)), Some(number), "{text}");
        }
        for other in [json!(""), json!("0x"), json!("10"), json!("0b1"), json!("0x_1"), json!("0x+1"), json!(10)] {
            assert_eq!(read(other.clone()), None, "{other}");
        }
        assert_eq!(read(json!("0x10000000000000000")), None, "more than 64 bits");
    }

    #[test]
    fn only_hexadecimal_text_is_data() {
        let read = |value: Value| from_value::<Data>(value).ok().map(|Data(bytes)| bytes.to_vec());
        assert_eq!((read(json!("0x")), read(json!("0x00fF"))), (Some(vec![]), Some(vec![0, 255])));
        for other in [json!(""), json!("00"), json!("0x0"), json!("0xzz"), json!([0, 1]), json!("0x0x00")] {
            assert_eq!(read(other.clone()), None, "{other}");
        }
    }
}
