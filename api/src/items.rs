//! The items endpoints: whoever calls reads, owners write.

mod view;

use jobs::items::{Change, ChangeOutcome, ItemId, Items};
use poem::{Request, http::StatusCode};
use poem_openapi::{ApiResponse, OpenApi, param::Path};

use self::view::{Item, ItemIdText, Said};
use crate::{
    auth::{self, Bearer},
    entity_tag,
    middleware::correlation,
    problem::{Fails, Problem, Statuses},
    tags::Tag,
    validation::{Body, Limit, Query, Skip},
    wire::Json,
};

/// The items endpoints.
#[derive(Clone)]
pub struct ItemsApi {
    /// The feature.
    pub items: Items,
}

#[derive(ApiResponse)]
enum Listed {
    /// One page, newest first.
    #[oai(status = 200)]
    Ok(
        Json<Vec<Item>>,
        /// How many items there are on all pages.
        #[oai(header = "X-Total-Count")]
        i64,
    ),
}

#[derive(ApiResponse)]
enum Found {
    /// As it now stands.
    #[oai(status = 200)]
    Ok(
        Json<Item>,
        /// Changes with every write.
        #[oai(header = "ETag")]
        String,
    ),
    /// Nothing has changed since the answer with the `ETag` named in `If-None-Match`.
    #[oai(status = 304)]
    NotModified(
        /// Changes with every write.
        #[oai(header = "ETag")]
        String,
    ),
}

#[derive(ApiResponse)]
enum Created {
    /// Recorded, and its indexing with it: both are committed.
    #[oai(status = 201)]
    Ok(
        Json<Item>,
        /// Where to look it up.
        #[oai(header = "Location")]
        String,
        /// Changes with every write.
        #[oai(header = "ETag")]
        String,
    ),
}

#[derive(ApiResponse)]
enum Updated {
    /// As it now stands.
    #[oai(status = 200)]
    Ok(
        Json<Item>,
        /// Changes with every write.
        #[oai(header = "ETag")]
        String,
    ),
}

#[derive(ApiResponse)]
enum Deleted {
    /// It is gone.
    #[oai(status = 204)]
    Done,
}

#[derive(Debug)]
struct Listing;

impl Statuses for Listing {
    const ALL: &'static [u16] = &[422, 503];
}

#[derive(Debug)]
struct Finding;

impl Statuses for Finding {
    const ALL: &'static [u16] = &[404, 412, 422, 503];
}

#[derive(Debug)]
struct Creating;

impl Statuses for Creating {
    const ALL: &'static [u16] = &[400, 401, 403, 408, 413, 415, 422, 503];
}

#[derive(Debug)]
struct Updating;

impl Statuses for Updating {
    const ALL: &'static [u16] = &[400, 401, 403, 404, 408, 412, 413, 415, 422, 503];
}

#[derive(Debug)]
struct Deleting;

impl Statuses for Deleting {
    const ALL: &'static [u16] = &[401, 403, 404, 412, 422, 503];
}

#[OpenApi(tag = "Tag::Items", prefix_path = "/api/v1")]
impl ItemsApi {
    /// List items
    ///
    /// Newest first, each with its owner.
    #[oai(path = "/items", method = "get", operation_id = "list_items")]
    async fn list(
        &self,
        /// How many to leave out.
        skip: Query<Skip>,
        /// How many at most.
        limit: Query<Limit>,
    ) -> Result<Listed, Fails<Listing>> {
        let mut errors = Vec::new();
        let skip = skip.or_note(&mut errors).unwrap_or_default();
        let limit = limit.or_note(&mut errors).unwrap_or(Limit::DEFAULT);
        if !errors.is_empty() {
            return Err(Problem::invalid(errors).into());
        }
        let page = self.items.list(skip.0, limit.0.into()).await?;
        let shown: Vec<Item> = page.items.iter().map(Item::from).collect();
        Ok(Listed::Ok(Json::new(&shown)?, page.total))
    }

    /// Look an item up
    ///
    /// From a cache that is dropped at every write. Where the API's processes do not share one through Redis, an item
    /// may be shown at most 3 s old, but never older than what the process that answers has written itself.
    #[oai(
        path = "/items/:item_id",
        method = "get",
        operation_id = "get_item",
        request_header(
            name = "If-None-Match",
            ty = "Option<String>",
            description = "The `ETag` of an earlier answer."
        ),
        request_header(
            name = "If-Match",
            ty = "Option<String>",
            description = "An `ETag` that is wanted: 412 for another."
        )
    )]
    async fn get(&self, request: &Request, item_id: Path<ItemIdText>) -> Result<Found, Fails<Finding>> {
        let Some(item) = self.items.find(id(&item_id)?).await? else { return Err(unknown().into()) };
        let tag = entity_tag::of_version(item.version);
        entity_tag::check_expected(request.headers(), &tag)?;
        if entity_tag::is_known(request.headers(), &tag) {
            return Ok(Found::NotModified(tag));
        }
        Ok(Found::Ok(Json::new(&Item::from(&*item))?, tag))
    }

    /// Create an item
    ///
    /// It belongs to the caller. It can be found by its texts a moment later.
    #[oai(path = "/items", method = "post", operation_id = "create_item")]
    async fn create(&self, request: &Request, caller: Bearer, body: Body<Said>) -> Result<Created, Fails<Creating>> {
        let said = body.read()?;
        check_owner(&said, &caller)?;
        let created = self.items.create(caller.user, &said.contents, correlation::origin(request)).await?;
        // The token is good, but its user is gone.
        let item = created.ok_or_else(|| auth::unauthorized("Invalid or expired token"))?;
        let location = format!("/api/v1/items/{}", item.id);
        Ok(Created::Ok(Json::new(&Item::from(&item))?, location, entity_tag::of_version(item.version)))
    }

    /// Replace an item
    ///
    /// Only its owner may. The item says what the body says: `description` and `price_cents` become null when they are
    /// left out. Without `If-Match` the last write wins.
    #[oai(
        path = "/items/:item_id",
        method = "put",
        operation_id = "update_item",
        request_header(
            name = "If-Match",
            ty = "Option<String>",
            description = "The `ETag` of the item as the caller knows it: 412 when it has changed since."
        ),
        request_header(
            name = "If-None-Match",
            ty = "Option<String>",
            description = "`*` or an `ETag` that the item must not have: 412 when it has."
        )
    )]
    async fn update(
        &self,
        request: &Request,
        caller: Bearer,
        item_id: Path<ItemIdText>,
        body: Body<Said>,
    ) -> Result<Updated, Fails<Updating>> {
        let said = body.read()?;
        let change = change(request, &caller, id(&item_id)?);
        check_owner(&said, &caller)?;
        let item = done(self.items.update(&change, &said.contents, correlation::origin(request)).await?)?;
        Ok(Updated::Ok(Json::new(&Item::from(&item))?, entity_tag::of_version(item.version)))
    }

    /// Delete an item
    ///
    /// Only its owner may.
    #[oai(
        path = "/items/:item_id",
        method = "delete",
        operation_id = "delete_item",
        request_header(
            name = "If-Match",
            ty = "Option<String>",
            description = "The `ETag` of the item as the caller knows it: 412 when it has changed since."
        ),
        request_header(
            name = "If-None-Match",
            ty = "Option<String>",
            description = "`*` or an `ETag` that the item must not have: 412 when it has."
        )
    )]
    async fn delete(
        &self,
        request: &Request,
        caller: Bearer,
        item_id: Path<ItemIdText>,
    ) -> Result<Deleted, Fails<Deleting>> {
        let change = change(request, &caller, id(&item_id)?);
        done(self.items.delete(&change, correlation::origin(request)).await?)?;
        Ok(Deleted::Done)
    }
}

/// The id in the path, or why there is no such item.
fn id(Path(ItemIdText(text)): &Path<ItemIdText>) -> Result<ItemId, Problem> {
    match view::id(text) {
        Ok(id) => id.ok_or_else(unknown),
        Err(wrong) => {
            let input = serde_json::to_string(text).ok();
            Err(Problem::invalid(vec![wrong.at("path", "item_id", input.as_deref())]))
        }
    }
}

fn change(request: &Request, caller: &Bearer, id: ItemId) -> Change {
    let headers = request.headers();
    let (expected, unwanted) = (entity_tag::expected(headers), entity_tag::unwanted(headers));
    Change { id, by: caller.user, expected, unwanted }
}

/// An item is its writer's own.
fn check_owner(said: &Said, caller: &Bearer) -> Result<(), Problem> {
    match said.owner_id {
        Some(owner) if owner != caller.user.0 => {
            Err(Problem::new(StatusCode::FORBIDDEN, "owner_id must be your own id"))
        }
        _ => Ok(()),
    }
}

/// What came of a change, or why not.
fn done<T>(changed: ChangeOutcome<T>) -> Result<T, Problem> {
    match changed {
        ChangeOutcome::Done(value) => Ok(value),
        ChangeOutcome::Unknown => Err(unknown()),
        ChangeOutcome::NotYours => Err(Problem::new(StatusCode::FORBIDDEN, "Not the owner of this item")),
        ChangeOutcome::Stale(version) => Err(entity_tag::failed(&entity_tag::of_version(version))),
    }
}

fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "Item not found")
}
