//! The endpoints of the Mars probes: set up, moved, and shown.

mod listing;
mod view;

use jobs::probes::{Moved, Probes, events};
use poem::{Request, http::Method, http::StatusCode};
use poem_openapi::{ApiResponse, OpenApi};
use serde_json::json;
use uuid::Uuid;

use self::{
    listing::Listing,
    view::{Move, PageSize, Probe, Setup},
};
use crate::{
    problem::{Fails, Problem, Statuses},
    tags::Tag,
    validation::{Body, Cursor, Query},
    wire::Json,
};

/// The endpoints of the Mars probes.
#[derive(Clone)]
pub struct ProbesApi {
    /// The feature.
    pub probes: Probes,
}

#[derive(ApiResponse)]
enum Stands {
    /// The probe as it now stands.
    #[oai(status = 200)]
    Ok(Json<Probe>),
}

#[derive(ApiResponse)]
enum Listed {
    /// The probes, oldest first.
    #[oai(status = 200)]
    Ok(
        Listing,
        /// The next page, `rel="next"`, when `limit` is given and there is one.
        #[oai(header = "Link")]
        Option<String>,
    ),
}

#[derive(Debug)]
struct SettingUp;

impl Statuses for SettingUp {
    const ALL: &'static [u16] = &[400, 408, 413, 415, 422, 503];
}

#[derive(Debug)]
struct Moving;

impl Statuses for Moving {
    const ALL: &'static [u16] = &[400, 404, 408, 413, 415, 422, 503];
}

#[derive(Debug)]
struct Checking;

impl Statuses for Checking {
    const ALL: &'static [u16] = &[422, 503];
}

#[OpenApi(tag = "Tag::Probes", prefix_path = "/api/v1")]
impl ProbesApi {
    /// Set a probe up
    ///
    /// It stands at (0, 0) of a grid of its own. `x` and `y` are the largest coordinates; one of them may be 0.
    #[oai(path = "/setup", method = "post", operation_id = "set_probe_up")]
    async fn setup(&self, body: Body<Setup>) -> Result<Stands, Fails<SettingUp>> {
        let said = body.read().inspect_err(|problem| {
            if let Some(failures) = problem.failures() {
                events::invalid_setup(&failures);
            }
        });
        let Setup { grid, direction } = said?;
        let probe = self.probes.create(grid, direction).await?;
        Ok(Stands::Ok(Json::new(&Probe::new(probe.id, probe.stand))?))
    }

    /// Move a probe
    ///
    /// `M` is a step ahead, `L` and `R` are turns; either case, outer blanks left out. All commands are obeyed, or none.
    /// Moves of one probe at the same time take place one after the other. What the probe cannot do is told as an
    /// object in `detail`: 404 `PROBE_NOT_FOUND`, 400 `INVALID_COMMAND_ERROR`, 422 `INVALID_MOVEMENT_ERROR`.
    #[oai(path = "/move", method = "patch", operation_id = "move_probe")]
    async fn send(&self, body: Body<Move>) -> Result<Stands, Fails<Moving>> {
        let said = body.read().inspect_err(|problem| {
            if let Some(failures) = problem.failures() {
                events::invalid_command(None, "", &failures);
            }
        });
        let Move { id, command } = said?;
        match self.probes.send(id, &command).await? {
            Moved::Done(stand) => Ok(Stands::Ok(Json::new(&Probe::new(id, stand))?)),
            refused => Err(refusal(id, refused).into()),
        }
    }

    /// Where the probes are
    ///
    /// Oldest first: all of them that there are when it begins, streamed, or with `limit` a page. Should the database
    /// fail in the middle, the answer breaks off, so that no client takes a part for the whole.
    #[oai(path = "/check", method = "get", operation_id = "check_probes")]
    async fn check(
        &self,
        request: &Request,
        /// How many at most; all, when it is not given.
        limit: Query<PageSize>,
        /// Where the list begins, as a `Link` header gave it.
        cursor: Query<Cursor<8>>,
    ) -> Result<Listed, Fails<Checking>> {
        let mut errors = Vec::new();
        let limit = limit.value_or_record(&mut errors);
        let after = cursor.value_or_record(&mut errors).map(|Cursor(bytes)| i64::from_be_bytes(bytes));
        if !errors.is_empty() {
            return Err(Problem::invalid(errors).into());
        }
        let Some(limit) = limit else {
            let listing = self.probes.listing(after).await?;
            // What HEAD would throw away need not be read.
            let wanted = *request.method() != Method::HEAD;
            return Ok(Listed::Ok(Listing::new(listing, wanted).await?, None));
        };
        // One more than shown tells whether there is a next page.
        let mut page = self.probes.page(after, u32::from(limit.0) + 1).await?;
        let more = page.len() > usize::from(limit.0);
        page.truncate(limit.0.into());
        let link = page.last().filter(|_| more).map(|last| view::next_link(limit, last.number));
        Ok(Listed::Ok(Listing::of_page(&page)?, link))
    }
}

/// What the seed's clients are told of a move that did not take place.
fn refusal(id: Uuid, refused: Moved) -> Problem {
    let (status, code, message) = match refused {
        Moved::Invalid(letter) => (
            StatusCode::BAD_REQUEST,
            "INVALID_COMMAND_ERROR",
            format!(
                "The command '{}' does not exist. The existent commands are: M, L, R. For security, no commands were \
                 delivered to the probe.",
                letter.0
            ),
        ),
        Moved::Wall(wall) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "INVALID_MOVEMENT_ERROR",
            format!(
                "Movement outside grid limits. The probe must not exceed the grid size of ({}, {}). For security, no \
                 commands were delivered to the probe.",
                wall.0.x, wall.0.y
            ),
        ),
        // What is done is no refusal.
        Moved::Unknown | Moved::Done(_) => (StatusCode::NOT_FOUND, "PROBE_NOT_FOUND", format!("Probe {id} not found.")),
    };
    events::invalid_command(Some(id), code, &message);
    Problem::domain(status, json!({"code": code, "message": message}))
}
