//! Calls share writes: their limits, failures and helpers.

use std::sync::Mutex as Log;

use super::*;

const LIMITS: Limits = Limits { writers: 1, further_writers_at: 0, size: 100, waiting: 1000, wait: None };

#[tokio::test]
async fn calls_during_a_write_share_the_next_one() {
    let batches = Arc::new(Log::new(Vec::new()));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (log, opened) = (batches.clone(), gate.clone());
    let batch = Batch::start(LIMITS, move |items: Vec<u32>| {
        let (log, opened) = (log.clone(), opened.clone());
        async move {
            opened.acquire().await.map_err(|_| Error::Internal("closed".into()))?.forget();
            log.lock().unwrap_or_else(|e| e.into_inner()).push(items.clone());
            Ok(items)
        }
    });
    let calls: Vec<_> = (0..10)
        .map(|n| {
            let batch = batch.clone();
            tokio::spawn(async move { batch.call(n).await })
        })
        .collect();
    gate.add_permits(2);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.ok().and_then(Result::ok), u32::try_from(n).ok());
    }
    assert_eq!(batches.lock().map(|log| log.iter().map(Vec::len).sum::<usize>()).ok(), Some(10));
    assert!(batches.lock().is_ok_and(|log| log.len() <= 2), "only two writes were let through");
}

#[tokio::test(start_paused = true)]
async fn a_second_writer_helps_when_many_calls_wait() {
    let limits = Limits { writers: 2, further_writers_at: 3, ..LIMITS };
    let (entered, mut writing) = mpsc::unbounded_channel();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = gate.clone();
    let batch = Batch::start(limits, move |items: Vec<u32>| {
        let (entered, opened) = (entered.clone(), opened.clone());
        async move {
            let _ = entered.send(items.len());
            opened.acquire().await.map_err(|_| Error::Internal("closed".into()))?.forget();
            Ok(items)
        }
    });
    let call = |n| {
        let batch = batch.clone();
        tokio::spawn(async move { batch.call(n).await })
    };
    let mut calls = vec![call(0)];
    assert_eq!(writing.recv().await, Some(1));
    calls.extend([call(1), call(2)]);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!((batch.waiting(), writing.try_recv().ok()), (2, None), "two calls wait for the first writer");
    calls.push(call(3));
    assert_eq!(writing.recv().await, Some(3), "the second writer takes three calls");
    gate.add_permits(2);
    for (n, call) in (0..).zip(calls) {
        assert_eq!(call.await.ok().and_then(Result::ok), Some(n));
    }
    // Both writers end with the batch, and drop what they write with.
    drop(batch);
    assert_eq!(writing.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_slow_write_delays_no_other_call() {
    let limits = Limits { writers: 2, further_writers_at: 100, ..LIMITS };
    let (entered, mut writing) = mpsc::unbounded_channel();
    let batch = Batch::start(limits, move |items: Vec<u32>| {
        let _ = entered.send(());
        async move {
            if items.contains(&0) {
                std::future::pending::<()>().await;
            }
            Ok(items)
        }
    });
    let slow = tokio::spawn({
        let batch = batch.clone();
        async move { batch.call(0).await }
    });
    assert_eq!(writing.recv().await, Some(()));
    for n in 1..4 {
        assert_eq!(batch.call(n).await.ok(), Some(n));
    }
    assert!(!slow.is_finished(), "the slow write has not reached its time limit");
    slow.abort();
}

#[tokio::test]
async fn a_refused_row_fails_its_own_caller_only() {
    let batch = Batch::start(LIMITS, |items: Vec<u32>| async move {
        if items.contains(&3) { Err(Error::Internal("refused".into())) } else { Ok(items) }
    });
    let calls = futures_util::future::join_all((0..6).map(|n| batch.call(n))).await;
    for (n, result) in calls.into_iter().enumerate() {
        assert_eq!(result.is_err(), n == 3, "{n}");
    }
}

#[tokio::test]
async fn a_refused_row_of_a_full_batch_costs_few_writes() {
    let writes = Arc::new(Log::new(Vec::new()));
    let log = writes.clone();
    let batch = Batch::start(Limits { size: 500, ..LIMITS }, move |items: Vec<u32>| {
        let log = log.clone();
        async move {
            log.lock().unwrap_or_else(|e| e.into_inner()).push(items.len());
            if items.contains(&333) { Err(Error::Internal("refused".into())) } else { Ok(items) }
        }
    });
    let calls = futures_util::future::join_all((0..500).map(|n| batch.call(n))).await;
    for (n, result) in (0..).zip(calls) {
        assert_eq!(result.ok(), (n != 333).then_some(n));
    }
    let writes = writes.lock().map(|log| log.clone()).unwrap_or_default();
    assert_eq!(writes.first(), Some(&500));
    assert!(writes.len() <= 19, "{writes:?}");
}

#[tokio::test]
async fn a_panic_fails_only_its_callers() {
    let batch = Batch::start(LIMITS, |items: Vec<u32>| async move {
        assert!(!items.contains(&1), "refused loudly");
        Ok(items)
    });
    assert!(matches!(batch.call(1).await, Err(Error::Internal(_))));
    assert_eq!(batch.call(2).await.ok(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn callers_time_out_when_the_database_hangs() {
    let batch = Batch::start(LIMITS, |_: Vec<u32>| std::future::pending::<Result<Vec<u32>, Error>>());
    assert!(matches!(batch.call(1).await, Err(Error::Unavailable(_))));
    assert!(matches!(batch.call(2).await, Err(Error::Unavailable(_))), "the writer goes on");
}

#[tokio::test]
async fn a_call_is_refused_at_once_when_too_many_wait() {
    // The only writer hangs in its first item; the second item waits, and the third one is too many.
    let limits = Limits { size: 1, waiting: 1, ..LIMITS };
    let (entered, mut writing) = mpsc::unbounded_channel();
    let batch = Batch::start(limits, move |items: Vec<u32>| {
        let _ = entered.send(());
        async move {
            std::future::pending::<()>().await;
            Ok(items)
        }
    });
    let call = |n| {
        tokio::spawn({
            let batch = batch.clone();
            async move { batch.call(n).await }
        })
    };
    let first = call(1);
    assert_eq!(writing.recv().await, Some(()));
    let second = call(2);
    while batch.calls.capacity() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(batch.call(3).await, Err(Error::Unavailable(_))));
    first.abort();
    second.abort();
}
