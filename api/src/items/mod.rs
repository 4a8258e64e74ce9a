//! The items endpoints: everyone may read an item; only its owner may change it.

mod wire;

use jobs::items::{Change, ChangeOutcome, ItemId, Items};
use poem::{Request, http::StatusCode};
use poem_openapi::{ApiResponse, OpenApi, param::Path};

use self::wire::{Item, ItemIdText, ItemInput};
use crate::{
    auth::{self, Bearer},
    context::Context,
    entity_tag,
    link::next_link,
    middleware::correlation,
    page::{Limit, Skip},
    problem::{Failure, Problem, errors},
    tags::Tag,
    validation::{AllValid, Body, Query, ValidationError},
    wire::{Json, responses},
};

/// The items endpoints.
#[derive(Clone)]
pub struct ItemsApi {
    items: Items,
}

impl ItemsApi {
    pub(crate) fn new(context: &Context<'_>) -> Self {
        Self { items: context.app.items.clone() }
    }
}

responses! {
    /// One page, newest first.
    ListResponse = 200 Json<Vec<Item>> {
        /// The number of items on all pages.
        "X-Total-Count": i64,
        /// The next page as `<…>; rel="next"`; absent on the last page.
        "Link": Option<String>,
    };

    /// The item is committed, together with its indexing job.
    CreateResponse = 201 Json<Item> {
        /// The path of the item.
        "Location": String,
        /// Changes with every write of the item.
        "ETag": String,
    };

    /// The current item.
    UpdateResponse = 200 Json<Item> {
        /// Changes with every write of the item.
        "ETag": String,
    };
}

#[derive(ApiResponse)]
enum GetResponse {
    /// The current item.
    #[oai(status = 200)]
    Ok(
        Json<Item>,
        /// Changes with every write of the item.
        #[oai(header = "ETag")]
        String,
    ),
    /// The item still has the `ETag` named in `If-None-Match`.
    #[oai(status = 304)]
    NotModified(
        /// Changes with every write of the item.
        #[oai(header = "ETag")]
        String,
    ),
}

#[derive(ApiResponse)]
enum DeleteResponse {
    /// The item is deleted.
    #[oai(status = 204)]
    Done,
}

errors! {
    Listing: [422, 503];
    Finding: [404, 412, 422, 503];
    Creating: [400, 401, 403, 408, 413, 415, 422, 503];
    Updating: [400, 401, 403, 404, 408, 412, 413, 415, 422, 503];
    Deleting: [401, 403, 404, 412, 422, 503];
}

#[OpenApi(tag = "Tag::Items", prefix_path = "/api/v1")]
impl ItemsApi {
    /// List items
    ///
    /// Newest first, each with its owner.
    #[oai(path = "/items", method = "get", operation_id = "list_items")]
    async fn list(
        &self,
        /// The number of items to skip.
        skip: Query<Skip>,
        /// The largest number of items on the page.
        limit: Query<Limit>,
    ) -> Result<ListResponse, Failure<Listing>> {
        let (skip, limit) = (skip.0, limit.0).all_valid()?;
        let page = self.items.list(skip, limit.into()).await?;
        let items: Vec<Item> = page.items.iter().map(Item::from).collect();
        let shown = skip.saturating_add(i64::try_from(items.len()).unwrap_or(i64::MAX));
        let next = (!items.is_empty() && shown < page.total).then(|| {
            let (skip, limit) = (shown.to_string(), limit.to_string());
            next_link("/api/v1/items", &[("skip", Some(&skip)), ("limit", Some(&limit))])
        });
        Ok(ListResponse::Ok(Json::new(&items)?, page.total, next))
    }

    /// Get an item
    ///
    /// The item comes from a cache, which every write invalidates. If the API processes do not share a cache through
    /// Redis, the item may be up to 3 s old, but never older than the last write through the same process.
    #[oai(
        path = "/items/:item_id",
        method = "get",
        operation_id = "get_item",
        request_header(
            name = "If-None-Match",
            ty = "Option<String>",
            description = "The `ETag` of an earlier response."
        ),
        request_header(
            name = "If-Match",
            ty = "Option<String>",
            description = "The expected `ETag`: 412 if the item has another."
        )
    )]
    async fn get(&self, request: &Request, item_id: Path<ItemIdText>) -> Result<GetResponse, Failure<Finding>> {
        let Some(item) = self.items.find(parse_id(&item_id)?).await? else { return Err(not_found().into()) };
        let tag = entity_tag::of_version(item.version);
        if entity_tag::is_unchanged(request.headers(), &tag)? {
            return Ok(GetResponse::NotModified(tag));
        }
        Ok(GetResponse::Ok(Json::new(&Item::from(&*item))?, tag))
    }

    /// Create an item
    ///
    /// The caller becomes its owner. Search finds the item shortly afterwards.
    #[oai(path = "/items", method = "post", operation_id = "create_item")]
    async fn create(
        &self,
        request: &Request,
        caller: Bearer,
        body: Body<ItemInput>,
    ) -> Result<CreateResponse, Failure<Creating>> {
        let input = body.read()?;
        check_owner(&input, &caller)?;
        let created = self.items.create(caller.user, &input.contents, correlation::origin(request)).await?;
        // The token is valid, but its user no longer exists.
        let item = created.ok_or_else(|| auth::unauthorized("Invalid or expired token"))?;
        let location = format!("/api/v1/items/{}", item.id);
        Ok(CreateResponse::Ok(Json::new(&Item::from(&item))?, location, entity_tag::of_version(item.version)))
    }

    /// Replace an item
    ///
    /// Only the owner may replace an item. `description` and `price_cents` become null if the body lacks them. Without
    /// `If-Match` the last write wins.
    #[oai(
        path = "/items/:item_id",
        method = "put",
        operation_id = "update_item",
        request_header(
            name = "If-Match",
            ty = "Option<String>",
            description = "The `ETag` of the version that the caller knows: 412 if the item has changed since."
        ),
        request_header(
            name = "If-None-Match",
            ty = "Option<String>",
            description = "`*` or an `ETag` that the item must not have: 412 if it has."
        )
    )]
    async fn update(
        &self,
        request: &Request,
        caller: Bearer,
        item_id: Path<ItemIdText>,
        body: Body<ItemInput>,
    ) -> Result<UpdateResponse, Failure<Updating>> {
        let (id, input) = (read_id(&item_id), body.read()).all_valid()?;
        let change = build_change(request, &caller, id.ok_or_else(not_found)?);
        check_owner(&input, &caller)?;
        let item = into_result(self.items.update(&change, &input.contents, correlation::origin(request)).await?)?;
        Ok(UpdateResponse::Ok(Json::new(&Item::from(&item))?, entity_tag::of_version(item.version)))
    }

    /// Delete an item
    ///
    /// Only the owner may delete an item.
    #[oai(
        path = "/items/:item_id",
        method = "delete",
        operation_id = "delete_item",
        request_header(
            name = "If-Match",
            ty = "Option<String>",
            description = "The `ETag` of the version that the caller knows: 412 if the item has changed since."
        ),
        request_header(
            name = "If-None-Match",
            ty = "Option<String>",
            description = "`*` or an `ETag` that the item must not have: 412 if it has."
        )
    )]
    async fn delete(
        &self,
        request: &Request,
        caller: Bearer,
        item_id: Path<ItemIdText>,
    ) -> Result<DeleteResponse, Failure<Deleting>> {
        let change = build_change(request, &caller, parse_id(&item_id)?);
        into_result(self.items.delete(&change, correlation::origin(request)).await?)?;
        Ok(DeleteResponse::Done)
    }
}

/// Parses the id in the path.
///
/// # Errors
/// 404 for a number that no item can have; 422 for a text that is not an integer.
fn parse_id(text: &Path<ItemIdText>) -> Result<ItemId, Problem> {
    read_id(text)?.ok_or_else(not_found)
}

/// Reads the id in the path; `None` for a number that no item can have.
///
/// # Errors
/// The text is not an integer.
fn read_id(Path(ItemIdText(text)): &Path<ItemIdText>) -> Result<Option<ItemId>, ValidationError> {
    wire::parse_id(text).map_err(|error| error.at_text("path", "item_id", text))
}

fn build_change(request: &Request, caller: &Bearer, id: ItemId) -> Change {
    let headers = request.headers();
    let (expected, unwanted) = (entity_tag::if_match_versions(headers), entity_tag::if_none_match_versions(headers));
    Change { id, by: caller.user, expected, unwanted }
}

/// Checks that the body names no other owner than the caller.
fn check_owner(input: &ItemInput, caller: &Bearer) -> Result<(), Problem> {
    match input.owner_id {
        Some(owner) if owner != caller.user.0 => Err(auth::forbidden("owner_id must be your own id")),
        _ => Ok(()),
    }
}

/// Returns the value of a completed change, or the problem that prevented it.
fn into_result<T>(changed: ChangeOutcome<T>) -> Result<T, Problem> {
    match changed {
        ChangeOutcome::Done(value) => Ok(value),
        ChangeOutcome::Unknown => Err(not_found()),
        ChangeOutcome::NotYours => Err(auth::forbidden("Not the owner of this item")),
        ChangeOutcome::Stale(version) => Err(entity_tag::precondition_failed(&entity_tag::of_version(version))),
    }
}

fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "Item not found")
}
