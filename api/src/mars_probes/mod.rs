//! The Mars probe endpoints: set up, move and list probes.

mod listing;
mod wire;

use jobs::mars_probes::{MoveOutcome, Probes, events};
use poem::{Request, http::Method, http::StatusCode};
use poem_openapi::OpenApi;
use serde_json::json;
use uuid::Uuid;

use self::wire::{MoveInput, PageSize, Probe, SetupInput};
use crate::{
    context::Context,
    page::{self, Cursor},
    problem::{Failure, Problem, errors},
    tags::Tag,
    validation::{AllValid, Body, FromJsonBody, Query},
    wire::{Json, responses},
};

/// The Mars probe endpoints.
#[derive(Clone)]
pub struct ProbesApi {
    probes: Probes,
}

impl ProbesApi {
    pub(crate) fn new(context: &Context<'_>) -> Self {
        Self { probes: context.app.probes.clone() }
    }
}

responses! {
    /// The probe with its current position.
    ProbeResponse = 200 Json<Probe>;

    /// The probes, oldest first.
    ListResponse = 200 Json<wire::Probes> {
        /// The next page as `rel="next"`, if `limit` is given and there is a next page.
        "Link": Option<String>,
    };
}

errors! {
    SettingUp: [400, 408, 413, 415, 422, 503];
    Moving: [400, 404, 408, 413, 415, 422, 503];
    Checking: [422, 503];
}

#[OpenApi(tag = "Tag::Probes", prefix_path = "/api/v1")]
impl ProbesApi {
    /// Set up a probe
    ///
    /// The probe starts at (0, 0) of its own grid. `x` and `y` are the largest coordinates; one of them may be 0.
    #[oai(path = "/setup", method = "post", operation_id = "set_probe_up")]
    async fn setup(&self, body: Body<SetupInput>) -> Result<ProbeResponse, Failure<SettingUp>> {
        let SetupInput { grid, direction } = read_or_record(&body, events::record_invalid_setup)?;
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
        let record = |failures: &str| events::record_invalid_command(None, "", failures);
        let MoveInput { id, command } = read_or_record(&body, record)?;
        match self.probes.send(id, &command).await? {
            MoveOutcome::Done(position) => Ok(ProbeResponse::Ok(Json::new(&Probe::new(id, position))?)),
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
        limit: Query<Option<PageSize>>,
        /// The start of the list, from a `Link` header.
        cursor: Query<Option<Cursor<8>>>,
    ) -> Result<ListResponse, Failure<Checking>> {
        let (limit, cursor) = (limit.0, cursor.0).all_valid()?;
        let after = cursor.map(i64::from_be_bytes);
        let Some(limit) = limit else {
            let probes = self.probes.listing(after).await?;
            // The body of a HEAD response is discarded, so only its first page is read.
            let with_body = *request.method() != Method::HEAD;
            return Ok(ListResponse::Ok(listing::of_all(probes, with_body).await?, None));
        };
        let mut found = self.probes.page(after, page::fetch_limit(limit)).await?;
        let link = page::next_link(&mut found, limit, "/api/v1/check", |last| last.number.to_be_bytes());
        Ok(ListResponse::Ok(listing::of_page(&found)?, link))
    }
}

/// Reads a body. If it is invalid, `record` gets all invalid fields for the log.
fn read_or_record<T: FromJsonBody>(body: &Body<T>, record: impl FnOnce(&str)) -> Result<T, Problem> {
    body.read().inspect_err(|problem| {
        if let Some(failures) = problem.validation_failures() {
            record(&failures);
        }
    })
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
        MoveOutcome::OutOfGrid(limits) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "INVALID_MOVEMENT_ERROR",
            format!(
                "Movement outside grid limits. The probe must not exceed the grid size of ({}, {}). For security, no \
                 commands were delivered to the probe.",
                limits.0.x, limits.0.y
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
