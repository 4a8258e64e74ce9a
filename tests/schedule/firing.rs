//! Each nominal time fires once, when the database's clock has reached it.

use std::time::Duration;

use futures_util::future::join_all;
use jobs::{
    queue::Queue,
    schedule::{CatchUp, Cron, Schedule, Schedules, Timing},
};

use super::{Ground, NAME, SOON, Ticking, assert_each_second};
use crate::harness::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_workers_that_tick_each_second_one_fires() {
    let ground = Ground::new().await;
    let start = || Ticking::start(ground.schedules("* * * * * *", CatchUp::Latest), Timing::default());
    let ticking: Vec<Ticking> = (0..10).map(|_| start()).collect();
    ground.fired(6).await;
    join_all(ticking.into_iter().map(Ticking::stop)).await;
    let fires = ground.fires().await;
    assert_each_second(&fires);
    assert!(fires.iter().all(|fire| fire.kind == "on_time" && fire.lag >= 0.0), "{fires:?}");
    ground.assert_jobs().await;
    let lag = fires.iter().map(|fire| fire.lag).sum::<f64>() / fires.len() as f64;
    println!("{} fires of ten workers, {lag:.2} s after their times on average", fires.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_at_once_fires_once_and_who_comes_early_not_at_all() {
    let ground = Ground::new().await;
    let cron = Cron::parse("0 0 0 1 1 *").unwrap();
    let schedule = Schedule { name: NAME, cron, catch_up: CatchUp::All, work: ground.work.clone() };
    let schedules = Schedules::new(&ground.pool, &Queue::start(ground.pool.clone()), vec![schedule.clone()]);
    // Known from now on, so that the next new year is the first one.
    let ticking = Ticking::start(schedules.clone(), Timing::default());
    eventually("it is known", SOON, async || ground.value::<i64>("SELECT count(*) FROM schedules").await == 1).await;
    ticking.stop().await;
    let late = Duration::from_secs(90);
    let all_at_once = || join_all((0..20).map(|_| schedules.fire_due(&schedule, late)));
    assert!(all_at_once().await.iter().all(Result::is_ok));
    // A worker whose clock is ahead comes before the time by the database's clock.
    assert_eq!(ground.fires().await.len(), 0);
    ground.execute("UPDATE schedules SET since = since - interval '2 years'").await;
    assert!(all_at_once().await.iter().all(Result::is_ok));
    assert_eq!(ground.fires().await.len(), 2);
    ground.assert_jobs().await;
}

#[tokio::test]
async fn by_hand_it_fires_beside_its_own_times() {
    let ground = Ground::new().await;
    let schedules = ground.schedules("0 0 0 1 1 *", CatchUp::Latest);
    assert_eq!(schedules.fire_by_hand("no such schedule").await.unwrap(), None);
    assert_eq!(schedules.fire_by_hand(NAME).await.unwrap(), Some(1));
    assert_eq!(schedules.fire_by_hand(NAME).await.unwrap(), Some(1));
    ground.execute("UPDATE schedules SET since = since - interval '1 year'").await;
    let ticking = Ticking::start(schedules.clone(), Timing::default());
    let fires = ground.fired(3).await;
    ticking.stop().await;
    let kinds: Vec<&str> = fires.iter().map(|fire| &*fire.kind).collect();
    assert_eq!(kinds, ["made_up", "by_hand", "by_hand"]);
    ground.assert_jobs().await;
    let overview = schedules.overview().await.unwrap();
    assert_eq!((overview[0].name, &*overview[0].cron, overview[0].catch_up), (NAME, "0 0 0 1 1 *", "latest"));
    assert_eq!(overview[0].latest.len(), 3);
    assert!(overview[0].next > Some(overview[0].latest[0].fired_at));
}

#[tokio::test]
async fn old_fires_are_forgotten_but_for_the_latest() {
    let ground = Ground::new().await;
    let schedules = ground.schedules("0 0 0 1 1 *", CatchUp::All);
    schedules.fire_by_hand(NAME).await.unwrap();
    ground.execute("UPDATE schedules SET since = since - interval '10 years'").await;
    ground.execute("UPDATE schedule_fires SET fired_at = fired_at - interval '91 days'").await;
    let ticking = Ticking::start(schedules.clone(), Timing::default());
    ground.fired(10).await;
    ticking.stop().await;
    let fires = ground.fires().await;
    assert!(fires.len() == 10 && fires.iter().all(|fire| fire.kind == "made_up"), "the one by hand is gone: {fires:?}");
    ground.execute("UPDATE schedule_fires SET fired_at = fired_at - interval '91 days'").await;
    ground.execute("DELETE FROM schedule_fires WHERE fire_time = (SELECT max(fire_time) FROM schedule_fires)").await;
    let ticking = Ticking::start(schedules, Timing::default());
    let newest = "SELECT max(fire_time) > now() - interval '1 year' FROM schedule_fires";
    eventually("the last one is made up", SOON, async || ground.value::<bool>(newest).await).await;
    ticking.stop().await;
    assert_eq!(ground.fires().await.len(), 1);
}
