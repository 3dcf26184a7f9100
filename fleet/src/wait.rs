//! Waiting for an event: a condition that is asked again and again until a deadline, never a fixed sleep.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Result};

/// Short against anything that is waited for here, long against the cost of asking.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Asks `look` until it yields a value; after `bound` it is [`Error::Late`], naming `what`.
///
/// `look` is asked at least once, and once more after the deadline has passed.
pub fn eventually<T>(bound: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    try_eventually(bound, what, || Ok(look()))
}

/// Like [`eventually`], for a look that can find that waiting is useless.
pub(crate) fn try_eventually<T>(
    bound: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let late = start.elapsed() >= bound;
        if let Some(value) = look()? {
            return Ok(value);
        }
        if late {
            return Err(Error::Late { what: what.to_owned(), waited: start.elapsed() });
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yields_what_came_about_and_names_what_did_not() {
        let mut looks = 0;
        let third = eventually(Duration::from_secs(5), "the third look", || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(third.unwrap(), 3);

        let never = eventually(Duration::ZERO, "a thing that never is", || None::<()>);
        assert!(never.unwrap_err().to_string().contains("a thing that never is"));
    }
}
