//! A request for takes from when they are valid until it is answered: what became of it is told, also where its client gave up
//! meanwhile, as an Envoy does whose callout was late. Otherwise all would look best when it is worst.

use std::{sync::atomic::Ordering, time::Instant};

use contract::TakeRequest;

use super::Service;
use crate::{
    spans::{Times, Undecided},
    store::Answer,
};

/// It counts as given up where it is dropped untold: the server drops whatever answers a client that has left.
pub(super) struct Deciding<'a> {
    service: &'a Service,
    request: &'a TakeRequest<'a>,
    arrived: Instant,
    times: Option<Times<'a>>,
    told: bool,
}

impl<'a> Deciding<'a> {
    /// The store is asked now.
    pub(super) fn asks(
        service: &'a Service,
        request: &'a TakeRequest<'a>,
        arrived: Instant,
        mut times: Option<Times<'a>>,
    ) -> Self {
        if let Some(times) = &mut times {
            times.asks();
        }
        Self { service, request, arrived, times, told: false }
    }

    /// The store has answered.
    pub(super) fn answered(mut self, answer: &Answer) {
        self.told = true;
        self.service.telemetry.observe(self.request, answer, self.arrived.elapsed());
        self.tell(Ok(answer));
    }

    /// There was no room for it.
    pub(super) fn refused(mut self) {
        self.told = true;
        self.service.telemetry.observe_refused(self.request);
        self.tell(Err(Undecided::Overloaded));
    }

    fn tell(&self, answer: Result<&Answer, Undecided>) {
        if let Some(times) = &self.times {
            times.tell(self.request, answer);
        }
    }
}

impl Drop for Deciding<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.service.given_up.fetch_add(1, Ordering::Relaxed);
            self.service.telemetry.observe_given_up(self.request, self.arrived.elapsed());
            self.tell(Err(Undecided::GivenUp));
        }
    }
}
