//! Anchors on a real chain: an own one for each test, which `npm ci` in `tests/chain` brings.

mod compiled;
mod life;
mod node;
mod refused;
mod restarts;
mod world;
