//! The response that lists probes: one page as a whole, or all probes as a stream.

use std::io;

use futures_util::stream;
use hyper::body::Bytes;
use jobs::mars_probes::{ListedProbe, listing};
use poem::{Body, IntoResponse, Response, http::header};
use poem_openapi::{
    payload::Payload,
    registry::{MetaSchemaRef, Registry},
    types::Type,
};

use super::wire::{Probe, Probes};
use crate::problem::Problem;

const OPENING: &[u8] = b"{\"probes\":[";
const CLOSING: &[u8] = b"]}\n";

/// The response body `{"probes": […]}`.
pub struct Listing(Body);

impl Listing {
    /// A body with one page.
    ///
    /// # Errors
    /// 500 if a probe cannot be serialised as JSON.
    pub fn of_page(page: &[ListedProbe]) -> Result<Self, Problem> {
        let text = encode_chunk(page, true, true).map_err(|error| Problem::internal(error.to_string()))?;
        Ok(Self(text.into()))
    }

    /// A body with all pages of a listing. One page is sent as a whole; several are streamed as they are read. Without
    /// `with_body`, as for HEAD, only the first page is read.
    ///
    /// # Errors
    /// The first page cannot be read from the database or serialised.
    pub async fn new(mut listing: listing::Listing, with_body: bool) -> Result<Self, Problem> {
        let Some(first) = listing.next().await.transpose()? else { return Self::of_page(&[]) };
        if first.is_last {
            return Self::of_page(&first.probes);
        }
        let opening = encode_chunk(&first.probes, true, false).map_err(|error| Problem::internal(error.to_string()))?;
        if !with_body {
            return Ok(Self(Body::from_bytes_stream(stream::iter([Ok::<_, io::Error>(opening)]))));
        }
        let rest = stream::unfold(Some(listing), next_chunk);
        let chunks = futures_util::StreamExt::chain(stream::iter([Ok(opening)]), rest);
        Ok(Self(Body::from_bytes_stream(chunks)))
    }
}

/// The next chunk. An error aborts the connection: once the response has begun, its status can no longer report a
/// failure.
async fn next_chunk(listing: Option<listing::Listing>) -> Option<(io::Result<Bytes>, Option<listing::Listing>)> {
    let mut listing = listing?;
    match listing.next().await? {
        Ok(page) => {
            let chunk = encode_chunk(&page.probes, false, page.is_last).map_err(io::Error::from);
            Some((chunk, (!page.is_last).then_some(listing)))
        }
        Err(error) => {
            tracing::warn!(%error, "probe listing aborted");
            Some((Err(io::Error::other(error)), None))
        }
    }
}

/// Encodes probes as a chunk of the body; `is_first` adds its opening, `is_last` its end.
fn encode_chunk(probes: &[ListedProbe], is_first: bool, is_last: bool) -> serde_json::Result<Bytes> {
    let mut text = if is_first { OPENING.to_vec() } else { Vec::new() };
    for (at, placed) in probes.iter().enumerate() {
        if at > 0 || !is_first {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, &Probe::new(placed.id, placed.position))?;
    }
    if is_last {
        text.extend_from_slice(CLOSING);
    }
    Ok(text.into())
}

impl Payload for Listing {
    const CONTENT_TYPE: &'static str = "application/json";

    fn schema_ref() -> MetaSchemaRef {
        Probes::schema_ref()
    }

    fn register(registry: &mut Registry) {
        Probes::register(registry);
    }
}

impl IntoResponse for Listing {
    fn into_response(self) -> Response {
        let content_type = header::HeaderValue::from_static("application/json");
        let mut response = Response::from(self.0);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}
