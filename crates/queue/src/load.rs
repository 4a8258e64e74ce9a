//! Back-pressure: estimates how long a new call of a [`Batch`](super::batch::Batch) would wait, and refuses it if that is too
//! long.
//!
//! The estimate is the number of batches that are written before it, times the time of a batch. So it is right both for
//! single calls and for full batches, whose calls cost far less each.
//!
//! A refused call has an appointment: a time at which there is room for it, which its caller learns. Appointments take most
//! of the capacity, and no more, so that refused callers do not come back as one wave. While some are expected, other
//! calls get only the next batches. So a caller that keeps its appointment is not refused again, however long the overload
//! lasts. One that does not come back costs nothing: others are always let in up to full batches.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    sync::Mutex,
    time::{Duration, Instant},
};

use runtime::{error::Error, mutex::lock};

/// A refused caller is never asked to wait longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// The weight of the newest batch in the average time of a batch.
const NEWEST: f64 = 0.25;
/// Appointments are counted by slots of this length. HTTP has whole seconds, so a caller can only choose among the slots
/// that are whole seconds away.
const SLOT: Duration = Duration::from_millis(1000 / SLOTS_PER_SECOND);
const SLOTS_PER_SECOND: u64 = 4;
/// The share of the capacity that appointments may take. The rest allows for a capacity that is lower than estimated.
const APPOINTED: f64 = 0.8;
/// The wait of a call that keeps its appointment may be this much longer.
const PREFERRED: f64 = 1.25;
/// An appointment is valid for this many slots: clients add a random time.
const VALID_SLOTS: u64 = 10 * SLOTS_PER_SECOND;
/// Further refused calls get none. It limits the memory, to some 5 MB.
const MAX_APPOINTMENTS: usize = 100_000;

/// The load of a batch.
pub(crate) struct Load {
    /// Calls that are written at the same time, at most.
    at_once: usize,
    max_wait: Duration,
    begun: Instant,
    /// Keys come from senders. A random hash keeps them from choosing such that collide.
    hashes: RandomState,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The average time of a batch, in seconds.
    batch_s: f64,
    /// The slot of each refused key.
    appointments: HashMap<u64, u64>,
    /// The keys of each slot.
    slots: BTreeMap<u64, Vec<u64>>,
}

impl Load {
    pub(crate) fn new(at_once: usize, max_wait: Duration) -> Self {
        let (begun, hashes) = (Instant::now(), RandomState::new());
        Self { at_once: at_once.max(1), max_wait, begun, hashes, state: Mutex::default() }
    }

    /// Records the time of a batch.
    pub(crate) fn record(&self, time: Duration) {
        let mut state = lock(&self.state);
        state.batch_s += NEWEST * (time.as_secs_f64() - state.batch_s);
    }

    /// Refuses a call that would wait too long behind `waiting` others. `key` recognises it when it comes back.
    ///
    /// # Errors
    /// [`Error::Overloaded`] with the time after which there is room for it, in whole seconds.
    pub(crate) fn admit(&self, key: &str, waiting: usize) -> Result<(), Error> {
        self.admit_at(key, waiting, Instant::now())
    }

    fn admit_at(&self, key: &str, waiting: usize, now: Instant) -> Result<(), Error> {
        // Less than one full round waits at most for the batches under way.
        if waiting < self.at_once {
            return Ok(());
        }
        let key = self.hashes.hash_one(key);
        let slot = self.slot(now);
        let mut state = lock(&self.state);
        state.expire(slot);
        let appointment = state.appointments.get(&key).copied();
        let max_wait = match appointment {
            Some(appointment) if appointment <= slot => self.max_wait.mul_f64(PREFERRED),
            _ if state.expects_others(slot) => Duration::ZERO,
            _ => self.max_wait,
        };
        let rounds = waiting / self.at_once + 1;
        if state.batch_s * rounds as f64 <= max_wait.as_secs_f64() {
            return Ok(());
        }
        if let Some(early) = appointment.filter(|appointment| *appointment > slot) {
            let slots = u32::try_from(early - slot).unwrap_or(u32::MAX);
            return Err(Error::Overloaded(SLOT.saturating_mul(slots).min(MAX_RETRY_AFTER)));
        }
        let per_second = self.at_once as f64 / state.batch_s;
        // The float is positive, and a conversion saturates.
        let room = (APPOINTED * per_second * SLOT.as_secs_f64()) as usize;
        Err(Error::Overloaded(state.appoint(key, slot, room.max(1))))
    }

    /// The number of the slot at this time.
    fn slot(&self, now: Instant) -> u64 {
        let slots = now.saturating_duration_since(self.begun).as_millis() / SLOT.as_millis();
        u64::try_from(slots).unwrap_or(u64::MAX)
    }
}

impl State {
    /// Forgets the appointments that are no longer valid.
    fn expire(&mut self, now: u64) {
        while let Some(first) = self.slots.first_entry().filter(|first| first.key() + VALID_SLOTS < now) {
            let slot = *first.key();
            for key in first.remove() {
                // It may have a later one.
                if self.appointments.get(&key) == Some(&slot) {
                    self.appointments.remove(&key);
                }
            }
        }
    }

    /// Whether refused calls are expected now or later.
    fn expects_others(&self, now: u64) -> bool {
        self.slots.last_key_value().is_some_and(|(last, _)| *last >= now)
    }

    /// Gives a key the first appointment for which there is room, and returns the time until then.
    fn appoint(&mut self, key: u64, now: u64, room: usize) -> Duration {
        if self.appointments.len() >= MAX_APPOINTMENTS {
            return MAX_RETRY_AFTER;
        }
        for seconds in 1..=MAX_RETRY_AFTER.as_secs() {
            let slot = now + seconds * SLOTS_PER_SECOND;
            let keys = self.slots.entry(slot).or_default();
            if keys.len() < room {
                keys.push(key);
                self.appointments.insert(key, slot);
                return Duration::from_secs(seconds);
            }
        }
        MAX_RETRY_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,000 calls are written at once.
    fn load(batch: Duration) -> Load {
        let load = Load::new(1000, Duration::from_millis(500));
        for _ in 0..50 {
            load.record(batch);
        }
        load
    }

    /// The seconds after which a refused call may come back.
    fn retry_after(load: &Load, key: &str, waiting: usize, now: Instant) -> u64 {
        match load.admit_at(key, waiting, now) {
            Err(Error::Overloaded(after)) => after.as_secs(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_is_refused_when_it_would_wait_too_long() {
        let fast = load(Duration::from_millis(20));
        assert!(fast.admit("a", 19_999).is_ok(), "20 rounds of 20 ms");
        let slow = load(Duration::from_millis(200));
        assert!(slow.admit("a", 999).is_ok() && slow.admit("a", 1_999).is_ok(), "two rounds of 200 ms");
        assert!(matches!(slow.admit("a", 2_000), Err(Error::Overloaded(_))), "three rounds");
    }

    #[test]
    fn a_burst_after_single_calls_is_admitted() {
        let load = load(Duration::from_millis(1));
        assert!(load.admit("a", 15_000).is_ok());
    }

    #[test]
    fn refused_calls_come_back_at_different_times() {
        // 1,000 calls in 0.5 s: 2,000 a second, of which appointments take 400 in each quarter of a second.
        let (load, now) = (load(Duration::from_millis(500)), Instant::now());
        let mut counts = BTreeMap::<u64, usize>::new();
        for n in 0..1000 {
            *counts.entry(retry_after(&load, &n.to_string(), 5_000, now)).or_default() += 1;
        }
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(1, 400), (2, 400), (3, 200)]);
        let next = now + SLOT;
        assert_eq!(retry_after(&load, "next", 5_000, next), 1, "the next quarter of a second has room");
        assert_eq!(retry_after(&load, "999", 5_000, now), 3, "a call that is too early keeps its appointment");
        let all: Vec<u64> = (1000..30_000).map(|n| retry_after(&load, &n.to_string(), 5_000, now)).collect();
        assert_eq!(all.iter().max(), Some(&60));
        let later = now + Duration::from_secs(120);
        assert_eq!(retry_after(&load, "later", 5_000, later), 1, "those have come back by then");
    }

    #[test]
    fn a_call_that_keeps_its_appointment_is_preferred() {
        let (load, now) = (load(Duration::from_millis(200)), Instant::now());
        assert!(load.admit_at("other", 1_500, now).is_ok(), "two rounds of 200 ms");
        assert_eq!(retry_after(&load, "back", 2_000, now), 1);
        assert_eq!(retry_after(&load, "other", 1_500, now), 1, "the room is for the one that is expected");
        assert!(load.admit_at("third", 999, now).is_ok(), "but the next batches are always filled");
        let then = now + Duration::from_secs(1);
        assert!(load.admit_at("back", 2_999, then).is_ok(), "three rounds");
        assert_eq!(retry_after(&load, "other", 3_000, then), 1, "four rounds");
        assert!(load.admit_at("new", 1_500, now + Duration::from_secs(5)).is_ok(), "none is expected any more");
        let late = now + Duration::from_secs(30);
        assert_eq!(retry_after(&load, "back", 2_000, late), 1, "the appointment is over");
    }

    /// 8,000 calls a second for 8 s, of which 4,000 a second can be written. Refused ones come back once, at their time.
    #[test]
    fn under_twice_the_load_no_call_waits_long_and_refused_ones_are_let_in_later() {
        const STEP: Duration = Duration::from_millis(10);
        const WRITTEN: usize = 40;
        let (load, begun) = (load(Duration::from_millis(250)), Instant::now());
        let (mut waiting, mut longest, mut idle_steps) = (0_usize, 0, 0);
        let (mut back, mut again, mut number) = (BTreeMap::<u64, Vec<String>>::new(), 0, 0_u32);
        let mut refused = 0;
        for step in 0..8_000_u64 {
            let now = begun + STEP * u32::try_from(step).unwrap_or(u32::MAX);
            waiting = waiting.saturating_sub(WRITTEN);
            idle_steps += usize::from(waiting == 0 && (1..800).contains(&step));
            for key in back.remove(&step).unwrap_or_default() {
                match load.admit_at(&key, waiting, now) {
                    Ok(()) => (waiting, longest) = (waiting + 1, longest.max(waiting + 1)),
                    Err(_) => again += 1,
                }
            }
            let fresh = if step < 800 { 2 * WRITTEN } else { 0 };
            for _ in 0..fresh {
                number += 1;
                let key = number.to_string();
                match load.admit_at(&key, waiting, now) {
                    Ok(()) => (waiting, longest) = (waiting + 1, longest.max(waiting + 1)),
                    Err(Error::Overloaded(after)) => {
                        refused += 1;
                        back.entry(step + after.as_secs() * 100).or_default().push(key);
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        assert!(back.is_empty() && refused > 20_000, "{refused} refused");
        assert!(again * 20 <= refused, "{again} of {refused} were refused again");
        assert!(longest <= 2_500, "the last of {longest} waits 0.625 s");
        assert!(idle_steps < 8, "the writers had nothing to do in {idle_steps} of 800 steps");
    }
}
