//! The scope of log lines: the request or the job that they belong to. Its fields are in every line that is logged in it.
//!
//! A span of `tracing` does the same, but it is stored in a registry, formatted at its start, and entered and left at each
//! poll, also for work that logs nothing. A scope is one shared value, which is formatted for a line only.

use std::{fmt, sync::Arc};

use futures_util::future::Either;

tokio::task_local! {
    static CURRENT: Scope;
}

/// A scope. Clones share its fields.
#[derive(Clone)]
pub struct Scope(Arc<dyn Fields>);

/// The fields of a scope.
pub trait Fields: Send + Sync + 'static {
    /// Calls `visit` with the name and value of each field, in their order.
    ///
    /// # Errors
    /// The error of `visit`.
    fn visit(&self, visit: &mut Visit<'_>) -> fmt::Result;
}

/// Writes one field of a line.
pub type Visit<'v> = dyn FnMut(&'static str, Value<'_>) -> fmt::Result + 'v;

/// The value of a field.
#[derive(Debug, Clone, Copy)]
pub enum Value<'v> {
    Text(&'v str),
    Number(i64),
}

impl Scope {
    /// A scope with these fields.
    pub fn new(fields: Arc<impl Fields>) -> Self {
        Self(fields)
    }

    /// The scope of the caller; `None` outside requests and jobs.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Does the work of a future in this scope.
    pub fn attach_to<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// Does work in this scope.
    pub fn run<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Scope");
        self.0.visit(&mut |name, value| {
            fields.field(name, &value);
            Ok(())
        })?;
        fields.finish()
    }
}

/// Attaches the scope of the caller, if it has one, to work that another task does.
pub fn inherit<F: Future>(work: F) -> impl Future<Output = F::Output> {
    match Scope::current() {
        Some(scope) => Either::Left(scope.attach_to(work)),
        None => Either::Right(work),
    }
}

/// Visits the fields of the current scope, if there is one.
pub(super) fn visit_current(visit: &mut Visit<'_>) -> fmt::Result {
    CURRENT.try_with(|scope| scope.0.visit(visit)).unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Job(i64);

    impl Fields for Job {
        fn visit(&self, visit: &mut Visit<'_>) -> fmt::Result {
            visit("queue", Value::Text("q"))?;
            visit("run", Value::Number(self.0))
        }
    }

    fn job(run: i64) -> Scope {
        Scope::new(Arc::new(Job(run)))
    }

    fn current() -> String {
        let mut text = String::new();
        visit_current(&mut |name, value| {
            text += &format!("{name} {value:?} ");
            Ok(())
        })
        .expect("infallible");
        text
    }

    #[tokio::test]
    async fn work_and_what_it_spawns_have_their_scope() {
        assert_eq!(current(), "");
        let (first, second) = tokio::join!(
            job(1).attach_to(async {
                tokio::task::yield_now().await;
                let spawned = tokio::spawn(inherit(async { current() })).await.expect("no panic");
                assert_eq!(spawned, current());
                let inner = job(7).run(current);
                assert!(inner.contains("Number(7)") && current().contains("Number(1)"), "{inner}");
                current()
            }),
            job(2).attach_to(async {
                tokio::task::yield_now().await;
                current()
            }),
        );
        assert_eq!(first, "queue Text(\"q\") run Number(1) ");
        assert_eq!(second, "queue Text(\"q\") run Number(2) ");
        assert_eq!(tokio::spawn(inherit(async { current() })).await.expect("no panic"), "");
        assert!(Scope::current().is_none());
    }
}
