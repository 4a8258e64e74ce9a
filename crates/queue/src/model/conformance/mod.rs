//! Conformance of the SQL to the model.
//!
//! For each statement, rows with every combination of the columns that it reads are written into a real PostgreSQL. The
//! store's function runs, and then every row must be the one that the model's function returns. All rows of a statement
//! are changed by one call, or by one transaction, so that a statement that touches a wrong row is noticed as well.
//!
//! [`guards`] removes each condition of the statements, and expects a difference.

mod cases;
mod conditions;
mod fair;
mod guards;
mod leases;
mod operators;
mod rewriter;
mod runs;
mod server;
mod world;

use std::pin::Pin;

use self::world::World;

/// Tries a statement on all its rows, and returns the differences to the model.
type Check = for<'w> fn(&'w World) -> Pin<Box<dyn Future<Output = Vec<String>> + 'w>>;

/// Declares the checks, and a test for each of them.
macro_rules! checks {
    ($($module:ident: $($name:ident)*;)*) => {
        /// All checks by their names.
        const CHECKS: &[(&str, Check)] = &[$($((stringify!($name), |world| Box::pin($module::$name(world)))),*),*];

        $($(
            #[tokio::test]
            async fn $name() {
                let world = World::create().await;
                let differences = $module::$name(&world).await;
                let first = differences.iter().take(10).map(|line| format!("\n  {line}")).collect::<String>();
                assert!(differences.is_empty(), "{} differences to the model:{first}", differences.len());
            }
        )*)*
    };
}

checks! {
    fair: claim_shares claim_limited;
    runs: insert insert_unique claim claim_order claim_some finish find_runs lock_free put_back results_during_rescue;
    leases: rescue rescue_without_row rescue_some find_lost_claims give_back_lost_claims find_workers delete_workers;
    operators: lock cancel request_cancellation cancellations replay discard discard_during_replay pause delete_expired
        delete_expired_elsewhere;
}
