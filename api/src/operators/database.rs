//! The endpoint of the database: its examination.

use poem_openapi::OpenApi;

use super::{
    DatabaseApi,
    wire::{database::DatabaseReport, json},
};
use crate::{
    auth::Viewer,
    problem::{Failure, errors},
    tags::Tag,
    wire::{Json, responses},
};

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
        self.0.read(&caller).await?;
        Ok(DatabaseResponse::Ok(json(&self.0.app.examine_database().await)?))
    }
}
