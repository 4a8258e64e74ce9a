//! The Mars probe endpoints: set up, move and list probes.

mod listing;
mod view;

use jobs::mars_probes::{MoveOutcome, Probes, events};
use poem::{Request, http::Method, http::StatusCode};
use poem_openapi::{ApiResponse, OpenApi};
use serde_json::json;
use uuid::Uuid;

use self::{
    listing::Listing,
    view::{MoveInput, PageSize, Probe, SetupInput},
};
use crate::{
    problem::{ErrorStatuses, Failure, Problem},
    tags::Tag,
    validation::{Body, Cursor, Query, require_no_errors},
    wire::Json,
};

/// The Mars probe endpoints.
#[derive(Clone)]
pub struct ProbesApi {
    /// The feature behind the endpoints.
    pub probes: Probes,
}

#[derive(ApiResponse)]
enum ProbeResponse {
    /// The probe with its current position.
    #[oai(status = 200)]
    Ok(Json<Probe>),
}

#[derive(ApiResponse)]
enum ListResponse {
    /// The probes, oldest first.
    #[oai(status = 200)]
    Ok(
        Listing,
        /// The next page as `rel="next"`, if `limit` is given and there is a next page.
        #[oai(header = "Link")]
        Option<String>,
    ),
}

#[derive(Debug)]
struct SettingUp;

impl ErrorStatuses for SettingUp {
    const ALL: &'static [u16] = &[400, 408, 413, 415, 422, 503];
}

#[derive(Debug)]
struct Moving;

impl ErrorStatuses for Moving {
    const ALL: &'static [u16] = &[400, 404, 408, 413, 415, 422, 503];
}

#[derive(Debug)]
struct Checking;

impl ErrorStatuses for Checking {
    const ALL: &'static [u16] = &[422, 503];
}

#[OpenApi(tag = "Tag::Probes", prefix_path = "/api/v1")]
impl ProbesApi {
    /// Set up a probe
    ///
    /// The probe starts at (0, 0) of its own grid. `x` and `y` are the largest coordinates; one of them may be 0.
    #[oai(path = "/setup", method = "post", operation_id = "set_probe_up")]
    async fn setup(&self, body: Body<SetupInput>) -> Result<ProbeResponse, Failure<SettingUp>> {
        let input = body.read().inspect_err(|problem| {
            if let Some(failures) = problem.validation_failures() {
                events::record_invalid_setup(&failures);
            }
        });
        let SetupInput { grid, direction } = input?;
        let probe = self.probes.create(grid, direction).await?;
        Ok(ProbeResponse::Ok(Json::new(&Probe::new(probe.id, probe.position))?))
    }

    /// Move a probe
    ///
    /// `M` moves one step ahead; `L` and `R` turn the probe. Case and outer blanks are ignored. Either all commands are
    /// executed or none. Concurrent moves of one probe are executed one after the other. A move that is impossible has
    /// an object in `detail`: 404 `PROBE_NOT_FOUND`, 400 `INVALID_COMMAND_ERROR`, 422 `INVALID_MOVEMENT_ERROR`.
    #[oai(path = "/move", method = "patch", operation_id = "move_probe")]
    async fn move_probe(&self, body: Body<MoveInput>) -> Result<ProbeResponse, Failure<Moving>> {
        let input = body.read().inspect_err(|problem| {
            if let Some(failures) = problem.validation_failures() {
                events::record_invalid_command(None, "", &failures);
            }
        });
        let MoveInput { id, command } = input?;
        match self.probes.send(id, &command).await? {
            MoveOutcome::Done(stand) => Ok(ProbeResponse::Ok(Json::new(&Probe::new(id, stand))?)),
            refused => Err(refusal(id, refused).into()),
        }
    }

    /// List probes
    ///
    /// Oldest first. Without `limit` the response streams all probes that exist when it starts; with `limit` it is a
    /// page. If the database fails in the middle, the connection is aborted, so that no client mistakes a part for the
    /// whole.
    #[oai(path = "/check", method = "get", operation_id = "check_probes")]
    async fn check(
        &self,
        request: &Request,
        /// The largest number of probes on the page; without it, all probes.
        limit: Query<PageSize>,
        /// The start of the list, from a `Link` header.
        cursor: Query<Cursor<8>>,
    ) -> Result<ListResponse, Failure<Checking>> {
        let mut errors = Vec::new();
        let limit = limit.value_or_record(&mut errors);
        let after = cursor.value_or_record(&mut errors).map(|Cursor(bytes)| i64::from_be_bytes(bytes));
        require_no_errors(errors)?;
        let Some(limit) = limit else {
            let listing = self.probes.listing(after).await?;
            // The body of a HEAD response is discarded, so only its first page is read.
            let with_body = *request.method() != Method::HEAD;
            return Ok(ListResponse::Ok(Listing::new(listing, with_body).await?, None));
        };
        // One probe more than the page holds is fetched: it shows whether there is a next page.
        let mut page = self.probes.page(after, u32::from(limit.0) + 1).await?;
        let more = page.len() > usize::from(limit.0);
        page.truncate(limit.0.into());
        let link = page.last().filter(|_| more).map(|last| view::next_link(limit, last.number));
        Ok(ListResponse::Ok(Listing::of_page(&page)?, link))
    }
}

/// The problem of a move that did not take place, with the texts that clients of the original service parse.
fn refusal(id: Uuid, refused: MoveOutcome) -> Problem {
    let (status, code, message) = match refused {
        MoveOutcome::Invalid(letter) => (
            StatusCode::BAD_REQUEST,
            "INVALID_COMMAND_ERROR",
            format!(
                "The command '{}' does not exist. The existent commands are: M, L, R. For security, no commands were \
                 delivered to the probe.",
                letter.0
            ),
        ),
        MoveOutcome::OutOfGrid(wall) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "INVALID_MOVEMENT_ERROR",
            format!(
                "Movement outside grid limits. The probe must not exceed the grid size of ({}, {}). For security, no \
                 commands were delivered to the probe.",
                wall.0.x, wall.0.y
            ),
        ),
        // `Done` never gets here: only rejected moves have a problem.
        MoveOutcome::Unknown | MoveOutcome::Done(_) => {
            (StatusCode::NOT_FOUND, "PROBE_NOT_FOUND", format!("Probe {id} not found."))
        }
    };
    events::record_invalid_command(Some(id), code, &message);
    Problem::domain(status, json!({"code": code, "message": message}))
}
