//! How long to wait between tries, and when to give a server up.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::{Blame, RemoteError};

/// Longest wait that a server did not ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Wait before try number `tries + 1`: `first · 2^(tries−1)`, at most 30 s, of which a random half is taken off so that
/// clients that failed together do not come back together; or what the server asks for, if that is longer.
pub(crate) fn wait(first: Duration, tries: u32, asked: Option<Duration>) -> Duration {
    let full = first.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LONGEST_WAIT);
    full.mul_f64(0.5 + 0.5 * random_unit()).max(asked.unwrap_or_default())
}

/// Between 0 and 1. Every `RandomState` has keys of its own.
fn random_unit() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        }
    }
}

/// What all questions to one server know together.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    answered: bool,
    failures_in_a_row: u32,
    down: Option<RemoteError>,
    /// The server asked for quiet until then.
    quiet_until: Option<Instant>,
}

impl Health {
    /// The reason to ask no more, if the server was given up.
    pub(crate) fn down(&self) -> Option<RemoteError> {
        self.state().down.clone()
    }

    /// Whether any question has been answered.
    pub(crate) fn answered(&self) -> bool {
        self.state().answered
    }

    pub(crate) fn succeeded(&self) {
        let mut state = self.state();
        (state.answered, state.failures_in_a_row) = (true, 0);
    }

    /// Counts a question that failed for good. After `limit` of them in a row the server is given up; at once if
    /// no question can succeed. A request that is itself at fault counts only as long as none has succeeded: perhaps the
    /// server refuses all.
    pub(crate) fn failed(&self, error: &RemoteError, limit: u32) {
        let mut state = self.state();
        match error.blame() {
            Blame::Stopped => return,
            Blame::Server => {
                state.down.get_or_insert_with(|| error.clone());
                return;
            }
            Blame::Request if state.answered => return,
            Blame::Request | Blame::Moment => state.failures_in_a_row += 1,
        }
        let failures = state.failures_in_a_row;
        if failures >= limit {
            let last = Box::new(error.clone());
            state.down.get_or_insert(RemoteError::Down { failures, last });
        }
    }

    /// Nobody asks before `until`.
    pub(crate) fn quiet(&self, until: Instant) {
        let quiet = &mut self.state().quiet_until;
        *quiet = (*quiet).max(Some(until));
    }

    pub(crate) fn quiet_until(&self) -> Option<Instant> {
        self.state().quiet_until
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is plain data, whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_never_undercut_the_server() {
        let first = Duration::from_millis(500);
        for (tries, full) in [(1, 500), (2, 1000), (3, 2000), (9, 30_000), (u32::MAX, 30_000)] {
            for _ in 0..50 {
                let got = wait(first, tries, None).as_millis();
                assert!((full / 2..=full).contains(&got), "{tries}: {got}");
            }
        }
        assert_eq!(wait(first, 1, Some(Duration::from_secs(7))), Duration::from_secs(7));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |value, seconds: Option<u64>| {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        };
        check("7", Some(7));
        check(" 0 ", Some(0));
        check("Sun, 06 Nov 1994 08:49:57 GMT", Some(20));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("soon", None);
        check("-3", None);
        check("1e300", None);
    }

    #[test]
    fn a_server_is_given_up_after_failures_in_a_row() {
        let moment = RemoteError::Timeout { url: "u".into(), phase: "p".into() };
        let status = |status| RemoteError::Status {
            url: "u".into(),
            status,
            message: "m".into(),
            code: None,
        };
        let health = Health::default();
        health.failed(&moment, 3);
        health.failed(&moment, 3);
        health.succeeded();
        health.failed(&moment, 3);
        health.failed(&moment, 3);
        health.failed(&status(400), 3);
        assert!(
            health.down().is_none(),
            "a success starts the count anew, and refusals are not counted after it"
        );
        health.failed(&moment, 3);
        assert!(matches!(health.down(), Some(RemoteError::Down { failures: 3, .. })));

        let wrong_key = Health::default();
        wrong_key.failed(&status(401), 3);
        assert!(matches!(wrong_key.down(), Some(RemoteError::Status { status: 401, .. })));
    }
}
