//! Opus in a build without its decoder.

pub(super) const RATE: u32 = 48_000;

pub(super) enum Opus {}

impl Opus {
    pub(super) fn new(_: &[u8]) -> Result<Self, String> {
        Err("is Opus, which this build does not decode: build with the feature `opus`".to_owned())
    }

    pub(super) fn decode(
        &mut self,
        _: &[u8],
        _: u64,
        _: &mut Vec<f32>,
    ) -> Result<(), &'static str> {
        match *self {}
    }
}
