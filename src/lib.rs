//! x
pub use salamander_engine::*;
