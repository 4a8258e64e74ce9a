//! JSON objects from other servers. A derived reader also accepts an array of the fields' values, which no server means.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// A `T` that is read from a JSON object only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Price<'a> {
        #[serde(borrow)]
        price: &'a RawValue,
        at: Option<u8>,
    }

    #[test]
    fn only_an_object_is_read() {
        let Object(read) = serde_json::from_str::<Object<Price<'_>>>(r#"{"price":1.50,"at":7}"#).expect("an object");
        assert_eq!((read.price.get(), read.at), ("1.50", Some(7)));
        for other in ["[1.50,7]", "[1.50]", "null", "7", r#"[{"price":1}]"#] {
            assert!(serde_json::from_str::<Object<Price<'_>>>(other).is_err(), "{other}");
        }
    }
}
