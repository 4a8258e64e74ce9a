//! The answer that shows probes: a page as a whole, or all of them as they are read.

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

use super::view::{Probe, Probes};
use crate::problem::Problem;

const OPENING: &[u8] = b"{\"probes\":[";
const CLOSING: &[u8] = b"]}\n";

/// `{"probes": […]}`, as a body.
pub struct Listing(Body);

impl Listing {
    /// A page that is the whole answer.
    ///
    /// # Errors
    /// 500, should a probe not be writable as JSON.
    pub fn of_page(page: &[ListedProbe]) -> Result<Self, Problem> {
        let text = written(page, true, true).map_err(|error| Problem::internal(error.to_string()))?;
        Ok(Self(text.into()))
    }

    /// All pages of a listing: at once when there is one, else as fast as they are read. Not `wanted`, only the first is
    /// looked at.
    ///
    /// # Errors
    /// As the listing's own before there is anything to show.
    pub async fn new(mut listing: listing::Listing, wanted: bool) -> Result<Self, Problem> {
        let Some(first) = listing.next().await.transpose()? else { return Self::of_page(&[]) };
        if first.is_last {
            return Self::of_page(&first.probes);
        }
        let opening = written(&first.probes, true, false).map_err(|error| Problem::internal(error.to_string()))?;
        if !wanted {
            return Ok(Self(Body::from_bytes_stream(stream::iter([Ok::<_, io::Error>(opening)]))));
        }
        let rest = stream::unfold(Some(listing), next);
        let chunks = futures_util::StreamExt::chain(stream::iter([Ok(opening)]), rest);
        Ok(Self(Body::from_bytes_stream(chunks)))
    }
}

/// The next chunk. An error breaks the connection off: an answer that has begun cannot say it in any other way.
async fn next(listing: Option<listing::Listing>) -> Option<(io::Result<Bytes>, Option<listing::Listing>)> {
    let mut listing = listing?;
    match listing.next().await? {
        Ok(page) => {
            let chunk = written(&page.probes, false, page.is_last).map_err(io::Error::from);
            Some((chunk, (!page.is_last).then_some(listing)))
        }
        Err(error) => {
            tracing::warn!(%error, "a listing of probes is broken off");
            Some((Err(io::Error::other(error)), None))
        }
    }
}

/// These probes as a part of the answer.
fn written(probes: &[ListedProbe], opens: bool, closes: bool) -> serde_json::Result<Bytes> {
    let mut text = if opens { OPENING.to_vec() } else { Vec::new() };
    for (at, placed) in probes.iter().enumerate() {
        if at > 0 || !opens {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, &Probe::new(placed.id, placed.position))?;
    }
    if closes {
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
