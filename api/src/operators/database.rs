//! The endpoint of the database: its examination.

use jobs::app::App;
use poem_openapi::OpenApi;

use super::{
    Access,
    wire::{database::DatabaseReport, json},
};
use crate::{
    auth::Viewer,
    context::Context,
    problem::{Failure, errors},
    tags::Tag,
    wire::{Json, responses},
};

/// The endpoint of the database.
#[derive(Clone)]
pub(crate) struct DatabaseApi {
    access: Access,
    app: App,
}

impl DatabaseApi {
    /// The endpoint, within the rate limit that all operators' routes share.
    pub(crate) fn new(context: &Context<'_>) -> Self {
        Self { access: Access::new(context), app: context.app.clone() }
    }
}

responses! {
    /// All checks with their findings, also if the database cannot be reached.
    DatabaseResponse = 200 Json<DatabaseReport>;
}

errors! {
    Examining: [401, 403, 429];
}

#[OpenApi(tag = "Tag::Operators")]
impl DatabaseApi {
    /// Examine the database
    ///
    /// What is wrong with the database or will be soon: schema, indexes, autovacuum, old snapshots, connections, locks,
    /// replication slots, clocks, durability. Each finding has the SQL or the command that corrects it. It reads
    /// catalogues and statistics, so its cost does not depend on the number of jobs. A check that takes over 1 s has no
    /// result; the others go on. One examination at a time runs in a process.
    #[oai(path = "/admin/queue/doctor", method = "get", operation_id = "examine_database")]
    async fn examine(&self, caller: Viewer) -> Result<DatabaseResponse, Failure<Examining>> {
        self.access.read(&caller).await?;
        Ok(DatabaseResponse::Ok(json(&self.app.examine_database().await)?))
    }
}
