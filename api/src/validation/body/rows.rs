//! Bodies with many rows: a JSON array, or one object a line (NDJSON). Each row is read by itself and has its own errors.

use std::{marker::PhantomData, time::Duration};

use hyper::body::Bytes;
use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, MetaSchema, Registry},
};
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    BYTE_ORDER_MARK, Fields, FromJsonBody, FromJsonObject, check_declared_as, fields::not_an_object, not_json,
    read_elements,
};
use crate::{
    middleware::body_limit,
    problem::Problem,
    schema::inline,
    validation::{FieldError, ValidationError},
};

/// The names of NDJSON. There is no registered one.
const NDJSON: [&str; 4] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];

/// Bodies in memory at the same time, each of at most 4 MiB and with what is read from it. Further requests wait unread, so
/// that any number of senders uses a bounded amount of memory.
static IN_MEMORY: Semaphore = Semaphore::const_new(16);
/// How long a request waits for its turn.
const WAIT: Duration = Duration::from_secs(10);

/// An object that comes in many rows.
pub(crate) trait RowType: FromJsonObject {
    /// The field that identifies a row in the response.
    const ID: &'static str;
    /// The most rows of one body.
    const MAX_ROWS: usize;
}

/// A row that is not valid.
#[derive(Debug)]
pub(crate) struct InvalidRow {
    /// The text in [`RowType::ID`], if there is one.
    pub id: Option<String>,
    pub errors: Vec<ValidationError>,
}

/// A row.
pub(crate) type Row<T> = Result<T, InvalidRow>;

/// The body of a request with many rows: read completely and limited in size. Parsed only by [`Rows::read`], since a
/// signature covers the raw bytes.
pub(crate) struct Rows<T> {
    raw: Bytes,
    read_as: PhantomData<fn() -> T>,
    _in_memory: SemaphorePermit<'static>,
}

impl<T: RowType> Rows<T> {
    /// The bytes as received.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Parses and validates each row. They are in the order of the body.
    ///
    /// # Errors
    /// 400 if the body is not UTF-8, or an array that is not JSON; 422 if there are no rows or too many.
    pub(crate) fn read(&self) -> Result<Vec<Row<T>>, Problem> {
        parse(&self.raw)
    }
}

fn parse<T: RowType>(raw: &[u8]) -> Result<Vec<Row<T>>, Problem> {
    let raw = raw.strip_prefix(BYTE_ORDER_MARK).unwrap_or(raw);
    let text = std::str::from_utf8(raw).map_err(|error| not_json(&error))?.trim();
    if text.is_empty() {
        return Err(FieldError::missing().at_part("body", None).into());
    }
    let Found { rows, count } = if text.starts_with('[') { read_array(text)? } else { read_lines(text) };
    let wrong_length = |kind, words: &str, limit_name, limit: usize| {
        let items = if limit == 1 { "item" } else { "items" };
        let msg = format!("List should have at {words} {limit} {items} after validation, not {count}");
        let error = FieldError::new(kind, msg).with("field_type", "List");
        Err(error.with(limit_name, limit).with("actual_length", count).at_part("body", None).into())
    };
    match count {
        0 => wrong_length("too_short", "least", "min_length", 1),
        _ if count > T::MAX_ROWS => wrong_length("too_long", "most", "max_length", T::MAX_ROWS),
        _ => Ok(rows),
    }
}

/// The rows up to [`RowType::MAX_ROWS`], and the number of all.
struct Found<T> {
    rows: Vec<Row<T>>,
    count: usize,
}

impl<T: RowType> Found<T> {
    fn add(&mut self, raw: &str) {
        if self.count < T::MAX_ROWS {
            self.rows.push(read_row(raw, self.count));
        }
        self.count += 1;
    }
}

fn read_lines<T: RowType>(text: &str) -> Found<T> {
    let mut found = Found { rows: Vec::new(), count: 0 };
    text.lines().map(str::trim).filter(|line| !line.is_empty()).for_each(|line| found.add(line));
    found
}

fn read_array<T: RowType>(text: &str) -> Result<Found<T>, Problem> {
    let mut found = Found { rows: Vec::new(), count: 0 };
    read_elements(text, |_, raw| {
        found.add(raw);
        Ok(())
    })?;
    Ok(found)
}

fn read_row<T: RowType>(raw: &str, index: usize) -> Row<T> {
    let mut fields = match Fields::parse_object(raw, Some(index), T::SECRET) {
        Ok(fields) => fields,
        Err(error) => {
            let is_json = serde_json::from_str::<&RawValue>(raw).is_ok();
            let invalid = || FieldError::new("json_invalid", format!("Invalid JSON: {error}"));
            let error = if is_json { not_an_object() } else { invalid() };
            let input = Some(raw).filter(|_| T::SECRET.is_none());
            return Err(InvalidRow { id: None, errors: vec![error.at_element(index, None, input)] });
        }
    };
    match T::read(&mut fields) {
        Some(value) if fields.errors.is_empty() => Ok(value),
        _ => Err(InvalidRow { id: fields.text(T::ID), errors: fields.errors }),
    }
}

impl<'a, T: RowType> ApiExtractor<'a> for Rows<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        <T as FromJsonBody>::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let rows = MetaSchema {
            items: Some(Box::new(<T as FromJsonBody>::schema())),
            min_items: Some(1),
            max_items: Some(T::MAX_ROWS),
            ..MetaSchema::new("array")
        };
        // NDJSON has no schema, and generators of clients warn about it. The description of the operation names it.
        let json = MetaMediaType { content_type: "application/json", schema: inline(rows) };
        Some(MetaRequest { description: None, content: vec![json], required: true })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let turn = tokio::time::timeout(WAIT, IN_MEMORY.acquire()).await;
        // The semaphore is never closed, so the only failure is that the time is over.
        let Ok(Ok(in_memory)) = turn else { return Err(Problem::unavailable("too many batches wait").into()) };
        let raw = body_limit::read_up_to(body.take()?, body_limit::MAX_BATCH_BYTES).await?;
        let expected = "Content-Type must be application/json or application/x-ndjson.";
        check_declared_as(request.headers(), &NDJSON, expected)?;
        Ok(Self { raw, read_as: PhantomData, _in_memory: in_memory })
    }
}

#[cfg(test)]
mod tests {
    use poem::error::ResponseError;

    use super::*;
    use crate::validation::{Integer, Text, request};

    struct Thing {
        name: String,
        count: i64,
    }

    request! {
        /// A thing.
        #[example({"name": "a", "count": 1})]
        ThingRequest for Thing {
            name: Text<1, 5>,
            count: Integer<0, 9>,
        }
    }

    impl RowType for Thing {
        const ID: &'static str = "name";
        const MAX_ROWS: usize = 3;
    }

    fn read(body: &str) -> Result<Vec<String>, (u16, String)> {
        let rows = parse::<Thing>(body.as_bytes())
            .map_err(|problem| (problem.status().as_u16(), problem.validation_failures().unwrap_or_default()))?;
        let text = |row: Row<Thing>| match row {
            Ok(thing) => format!("{}={}", thing.name, thing.count),
            Err(InvalidRow { id, errors }) => {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                format!("{}: {}", id.unwrap_or_default(), errors.join(", "))
            }
        };
        Ok(rows.into_iter().map(text).collect())
    }

    #[test]
    fn each_row_has_its_own_result() {
        let rows = ["{\"name\":\"a\",\"count\":1}", "{\"name\":\"bad\",\"count\":10}", "{\"count\":2}"];
        let expected = ["a=1", "bad: body 1 count less_than_equal", ": body 2 name missing"];
        for body in [
            format!("[{}]", rows.join(",")),
            format!(" \u{feff}[\n{}\n]\n", rows.join("\n,\n")).replace(" \u{feff}", "\u{feff} "),
            rows.join("\n"),
            format!("\n\r\n{}\r\n\n", rows.join(" \r\n\n")),
        ] {
            assert_eq!(read(&body), Ok(expected.map(String::from).to_vec()), "{body:?}");
        }
    }

    #[test]
    fn a_broken_line_affects_only_itself() {
        let body = "{\"name\":\"a\",\"count\":1}\n{\"name\":\n[1]";
        assert_eq!(
            read(body),
            Ok(vec!["a=1".into(), ": body 1 json_invalid".into(), ": body 2 model_attributes_type".into()])
        );
    }

    #[test]
    fn the_number_of_rows_is_limited() {
        let row = "{\"name\":\"a\",\"count\":1}";
        for body in [format!("[{}]", [row; 4].join(",")), [row; 4].join("\n")] {
            let (status, problem) = read(&body).expect_err("too many");
            assert_eq!((status, problem.contains("too_long")), (422, true), "{problem}");
        }
        for (body, status) in [("", 422), (" \n ", 422), ("[]", 422), ("[{}", 400), ("[{}] x", 400), ("[{},]", 400)] {
            assert_eq!(read(body).expect_err(body).0, status, "{body}");
        }
        assert_eq!(parse::<Thing>(b"\xff").map(|_| ()).expect_err("not UTF-8").status().as_u16(), 400);
    }
}
