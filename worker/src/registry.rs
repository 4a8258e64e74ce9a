//! The registry: every kind of job that a worker runs, one line each.

use jobs::{
    app::App,
    interest_rates::reconcile::ReconcileRate,
    items::{index::IndexItem, search::reindex::ReindexItems},
    prices::fetch::FetchPrices,
    transactions::{callbacks::send_callback::SendCallback, process::ProcessTransaction},
};
use queue::{Registry, operator::replays::ReplayDeadLetters};

/// Registers the jobs of all features.
pub fn registry(app: &App) -> Registry {
    Registry::default()
        .job::<ProcessTransaction>(app.transactions.clone())
        .job::<SendCallback>(app.transactions.callbacks().clone())
        .job::<IndexItem>(app.items.clone())
        .job::<ReindexItems>(app.search.clone())
        .job::<ReconcileRate>(app.rates.clone())
        .job::<FetchPrices>(app.prices.clone())
        .job::<ReplayDeadLetters>(app.operator.clone())
}
