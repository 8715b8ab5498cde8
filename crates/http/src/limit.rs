//! Limits of rate, per address and per key.

use std::net::IpAddr;
use std::num::NonZeroU32;

use canvass_protocol::problem::Code;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Addresses after which old ones are forgotten.
const MAX_ADDRESSES: usize = 100_000;

/// Batches that are read and recorded at a time. Each may take [`crate::body::BATCH_LIMIT`] of memory, and some
/// more for its records; whoever comes while so many are under way is told to come back.
pub(crate) const BATCHES: usize = 64;

/// How much one address and one key may ask, and how much all of them together at a time.
pub struct Limits {
    batches: Semaphore,
    per_address: Option<DefaultKeyedRateLimiter<IpAddr>>,
    per_key: Option<DefaultKeyedRateLimiter<String>>,
}

fn quota(per_second: u32) -> Option<Quota> {
    // Twice a second's share may come at once: people arrive in bursts.
    let rate = NonZeroU32::new(per_second)?;
    Some(Quota::per_second(rate).allow_burst(rate.saturating_mul(NonZeroU32::MIN.saturating_add(1))))
}

impl Limits {
    /// Writes a second of one address and of one key; 0 is no limit. A batch's lines count one each.
    pub fn new(per_address: u32, per_key: u32) -> Self {
        Limits {
            batches: Semaphore::new(BATCHES),
            per_address: quota(per_address).map(RateLimiter::keyed),
            per_key: quota(per_key).map(RateLimiter::keyed),
        }
    }

    /// Asks for `n` writes of an address.
    pub(crate) fn address(&self, address: IpAddr, n: usize) -> Result<(), Code> {
        let Some(limiter) = &self.per_address else { return Ok(()) };
        if limiter.len() > MAX_ADDRESSES {
            limiter.retain_recent();
        }
        ask(limiter, &address, n)
    }

    /// Asks for room for a batch, for as long as the permit is kept.
    pub(crate) fn batch(&self) -> Result<SemaphorePermit<'_>, Code> {
        self.batches.try_acquire().map_err(|_| Code::Overloaded)
    }

    /// Asks for `n` writes of a key.
    pub(crate) fn key(&self, name: &str, n: usize) -> Result<(), Code> {
        self.per_key.as_ref().map_or(Ok(()), |limiter| ask(limiter, &name.to_owned(), n))
    }
}

fn ask<K: std::hash::Hash + Eq + Clone>(
    limiter: &DefaultKeyedRateLimiter<K>,
    who: &K,
    n: usize,
) -> Result<(), Code> {
    let Some(n) = u32::try_from(n).ok().and_then(NonZeroU32::new) else { return Ok(()) };
    match limiter.check_key_n(who, n) {
        Ok(Ok(())) => Ok(()),
        // A batch larger than the burst can never pass: it, too, comes too fast.
        Ok(Err(_)) | Err(_) => Err(Code::RateLimited),
    }
}
