//! The response that lists probes: one page as a whole, or all probes as a stream.

use std::io;

use futures_util::{StreamExt, stream};
use hyper::body::Bytes;
use jobs::mars_probes::{ListedProbe, listing};
use poem::Body;

use super::wire::{Probe, Probes};
use crate::{problem::Problem, wire::Json};

const OPENING: &[u8] = b"{\"probes\":[";
const CLOSING: &[u8] = b"]}\n";

/// A response with one page.
///
/// # Errors
/// 500 if a probe cannot be serialised as JSON.
pub(super) fn of_page(page: &[ListedProbe]) -> Result<Json<Probes>, Problem> {
    Ok(Json::from_body(encode_chunk(page, true, true)?))
}

/// A response with all pages of a listing. One page is sent as a whole; several are streamed as they are read. Without
/// `with_body`, as for HEAD, only the first page is read.
///
/// # Errors
/// The first page cannot be read from the database or serialised.
pub(super) async fn of_all(mut listing: listing::Listing, with_body: bool) -> Result<Json<Probes>, Problem> {
    let Some(first) = listing.next().await.transpose()? else { return of_page(&[]) };
    if first.is_last {
        return of_page(&first.probes);
    }
    let opening = encode_chunk(&first.probes, true, false)?;
    if !with_body {
        return Ok(Json::from_body(Body::from_bytes_stream(stream::iter([Ok::<_, io::Error>(opening)]))));
    }
    let rest = stream::unfold(Some(listing), next_chunk);
    Ok(Json::from_body(Body::from_bytes_stream(stream::iter([Ok(opening)]).chain(rest))))
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

/// Encodes probes as a chunk of the body. The first chunk begins with the opening, and the last one ends with the closing.
fn encode_chunk(probes: &[ListedProbe], is_first: bool, is_last: bool) -> serde_json::Result<Bytes> {
    let mut text = if is_first { OPENING.to_vec() } else { Vec::new() };
    for (at, probe) in probes.iter().enumerate() {
        if at > 0 || !is_first {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, &Probe::new(probe.id, probe.position))?;
    }
    if is_last {
        text.extend_from_slice(CLOSING);
    }
    Ok(text.into())
}
