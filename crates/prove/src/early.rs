//! The early end of a planted bug: the checker reads the history while the fault goes on.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use sqlx::postgres::PgConnectOptions;

use crate::{
    checker::{self, Verdict},
    history::{Event, History},
    store,
};

/// From the end of a check to the next one. In a debug build a check takes 30 ms of CPU time for 1,000 webhooks.
const PAUSE: Duration = Duration::from_millis(300);

/// Checks of a history that goes on.
pub(crate) struct EarlyCheck {
    pub history: Arc<History>,
    /// Of the fault's database, without a proxy.
    pub database: PgConnectOptions,
    pub with_completions: bool,
}

impl EarlyCheck {
    /// Returns when a promise is broken that no later event can mend.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub(crate) async fn until_broken(&self) -> Result<Verdict> {
        loop {
            tokio::time::sleep(PAUSE).await;
            let (before, now_ms) = (self.history.count(), self.history.now_ms());
            // The fault may keep the proof from its database for a while.
            let Ok(state) = self.state().await else { continue };
            let so_far = self.history.read()?.take(self.history.count());
            let verdict = checker::check_so_far(so_far, before, now_ms, state)?;
            if !verdict.is_kept() {
                return Ok(verdict);
            }
        }
    }

    async fn state(&self) -> sqlx::Result<Vec<Event>> {
        store::present_state(store::connect(&self.database).await?, self.with_completions).await
    }
}
