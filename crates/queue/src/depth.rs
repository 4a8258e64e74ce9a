//! How many jobs wait in a long queue.
//!
//! Up to [`COUNTED`] waiting jobs are counted at each look, which takes 1.5 ms. A longer queue is estimated: the cleaner
//! counts it now and then, and the events of [`queue_minutes`](crate::counts) since are added. An exact number at each
//! look would cost 0.15 to 0.9 s for 1,000,000 jobs; one that every transaction keeps would be a row that all of them
//! lock. The estimate is exact while nothing comes and goes. It lacks what no process counts: jobs that another program
//! inserts, and the last seconds of a process that was killed. The next count includes them. Until then, jobs that were
//! enqueued for later since the last count are among the due ones.

use super::{
    status::{COUNTED, DepthIs, QueueStatus},
    store::{depths as sql, gauges::Measured},
};
use runtime::db::Pool;

/// The numbers of a queue that may be estimates.
pub(crate) trait HasDepth {
    fn queue(&self) -> &str;
    /// The numbers of waiting and of due jobs, and what they are.
    fn depth(&mut self) -> (&mut i64, &mut i64, &mut DepthIs);
}

impl HasDepth for QueueStatus {
    fn queue(&self) -> &str {
        &self.name
    }

    fn depth(&mut self) -> (&mut i64, &mut i64, &mut DepthIs) {
        (&mut self.waiting, &mut self.due, &mut self.depth_is)
    }
}

impl HasDepth for Measured {
    fn queue(&self) -> &str {
        &self.queue
    }

    fn depth(&mut self) -> (&mut i64, &mut i64, &mut DepthIs) {
        (&mut self.waiting, &mut self.due, &mut self.depth_is)
    }
}

/// Replaces counts that stopped at [`COUNTED`] by estimates. Without such a count it reads nothing.
pub(crate) async fn estimate_long_queues<Q: HasDepth>(pool: &Pool, queues: &mut [Q]) -> sqlx::Result<()> {
    let mut long: Vec<&mut Q> =
        queues.iter_mut().filter_map(|queue| (*queue.depth().2 == DepthIs::AtLeast).then_some(queue)).collect();
    if long.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = long.iter().map(|queue| queue.queue().to_owned()).collect();
    for estimate in sql::estimate(pool, &names).await? {
        // Less than was counted just now is wrong: another program has inserted jobs.
        if let Some(queue) = long.iter_mut().find(|queue| queue.queue() == estimate.queue)
            && estimate.waiting >= COUNTED
        {
            let (waiting, due, depth_is) = queue.depth();
            *depth_is = DepthIs::Estimated;
            *waiting = estimate.waiting;
            if *due >= COUNTED {
                *due = (estimate.waiting - estimate.later).max(COUNTED);
            }
        }
    }
    Ok(())
}
