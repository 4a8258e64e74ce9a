//! The endpoints of callbacks: the destinations, enabling one again, and a test message.

use jobs::transactions::callbacks::model::{Enabled, Tested, audit_target};
use poem_openapi::OpenApi;
use time::OffsetDateTime;

use super::{
    CallbacksApi,
    actor::Actor,
    conflict, not_found,
    wire::{
        ActedResponse,
        callbacks::{Destination, Enabling, Test},
        input::TextParam,
        json,
    },
};
use crate::{
    auth::{Admin, Viewer},
    problem::{Failure, errors},
    tags::Tag,
    validation::{AllValid, Body, Query},
    wire::{Json, responses},
};

/// The detail of a 404.
const UNKNOWN: &str = "Unknown destination";

responses! {
    /// The destinations, by name.
    DestinationsResponse = 200 Json<Vec<Destination>>;

    /// The message was sent; `delivered` says whether the receiver has accepted it.
    TestResponse = 200 Json<Test>;
}

errors! {
    Listing: [401, 403, 429, 503];
    EnablingErrors: [400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503];
    Testing: [401, 403, 404, 409, 422, 429, 503];
}

#[OpenApi]
impl CallbacksApi {
    /// List destinations of callbacks
    ///
    /// Those of `CALLBACK_URL`, and all others that fail or are disabled.
    #[oai(
        path = "/admin/queue/callbacks",
        method = "get",
        operation_id = "list_callback_destinations",
        tag = "Tag::Operators"
    )]
    async fn list(&self, caller: Viewer) -> Result<DestinationsResponse, Failure<Listing>> {
        self.0.read(&caller).await?;
        let destinations = self.0.views.transactions.callbacks().list().await?;
        Ok(DestinationsResponse::Ok(json(&destinations)?))
    }

    /// Enable a destination of callbacks
    ///
    /// A destination is disabled when it responds 410, or has failed for three days. Its callbacks then become dead letters
    /// of the queue `send_callback`: replay them afterwards. 404 for an unknown destination, 409 if it is not disabled.
    #[oai(
        path = "/admin/queue/callbacks/enable",
        method = "post",
        operation_id = "enable_callback_destination",
        tag = "Tag::Operators"
    )]
    async fn enable(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        body: Body<Enabling>,
    ) -> Result<ActedResponse, Failure<EnablingErrors>> {
        self.0.act(&caller).await?;
        let (actor, Enabling { destination, reason }) = (actor.0, body.read()).all_valid()?;
        let order = actor.order(&caller, &reason)?;
        match self.0.app.transactions.callbacks().enable(&destination, &order).await? {
            Enabled::Enabled => {
                let target = audit_target(&destination);
                Ok(ActedResponse::new(order, "enable_callbacks", &target, "enabled")?)
            }
            Enabled::NotDisabled => Err(conflict("The destination is not disabled.").into()),
            Enabled::Unknown => Err(not_found(UNKNOWN).into()),
        }
    }

    /// Send a test callback
    ///
    /// Sends one message of the type `callback.test`, signed like every callback, and waits for the response, up to 10 s. A
    /// disabled destination gets it too. 404 for an unknown destination, 409 without `CALLBACK_URL`.
    #[oai(path = "/v1/callbacks/test", method = "post", operation_id = "test_callback", tag = "Tag::Transactions")]
    async fn test(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        /// The sender; absent for the destination of all senders without one of their own.
        destination: Query<Option<TextParam<64>>>,
    ) -> Result<TestResponse, Failure<Testing>> {
        self.0.act(&caller).await?;
        let (destination, actor) = (destination.0, actor.0).all_valid()?;
        let destination = destination.unwrap_or_default();
        let order = actor.order(&caller, "a test message")?;
        match self.0.app.transactions.callbacks().test(&destination, OffsetDateTime::now_utc(), &order).await? {
            Tested::Sent(message) => Ok(TestResponse::Ok(json(&message)?)),
            Tested::Unknown => Err(not_found(UNKNOWN).into()),
            Tested::NotConfigured => Err(conflict("CALLBACK_URL is not set: there is no destination.").into()),
        }
    }
}
