//! The schema of this release, as its migrations make it: `schema.txt`, one object a line.
//!
//! The file is made from a new database by an example of this crate, and a test compares it with one:
//! `cargo run -q -p runtime --example schema > target/schema.txt && mv target/schema.txt crates/runtime/src/doctor/`

use std::sync::LazyLock;

use super::store::schema::SchemaObject;

/// The objects of this release, in the order of their kinds and names.
pub(super) static OBJECTS: LazyLock<Vec<SchemaObject>> = LazyLock::new(|| parse(include_str!("schema.txt")));

/// The tables of this release, with their schemas.
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    OBJECTS.iter().filter(|object| object.kind == "table").map(|object| object.name.as_str())
}

/// Writes objects as the file has them.
pub(super) fn text(objects: &[SchemaObject]) -> String {
    let line = |object: &SchemaObject| {
        let SchemaObject { kind, name, definition } = object;
        format!("{kind}\t{name}\t{}\n", definition.replace('\n', "\\n"))
    };
    objects.iter().map(line).collect()
}

fn parse(text: &str) -> Vec<SchemaObject> {
    let object = |line: &str| {
        let mut parts = line.splitn(3, '\t').map(str::to_owned);
        let (kind, name) = (parts.next()?, parts.next()?);
        Some(SchemaObject { kind, name, definition: parts.next()?.replace("\\n", "\n") })
    };
    text.lines().filter_map(object).collect()
}
