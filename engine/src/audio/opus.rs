//! Opus packets to samples.

use ropus::OpusMSDecoder;

/// Opus is decoded at this rate whatever was recorded.
pub(super) const RATE: u32 = 48_000;
/// The longest packet is 120 ms.
const LONGEST: usize = 5_760;

/// A decoder with what an `OpusHead` says of the stream.
///
/// Reference: RFC 7845, section 5.1.
pub(super) struct Opus {
    inner: OpusMSDecoder,
    channels: usize,
    /// Samples that are still to be left out, which the encoder put before the sound.
    skip: usize,
    gain: f32,
    decoded: Vec<i16>,
}

impl Opus {
    /// `head` is the identification header.
    pub(super) fn new(head: &[u8]) -> Result<Self, String> {
        let short = || "has a broken OpusHead".to_owned();
        let fixed: &[u8; 19] = head.first_chunk().ok_or_else(short)?;
        if &fixed[..8] != b"OpusHead" || fixed[8] > 15 {
            return Err(short());
        }
        let channels = fixed[9];
        let stereo = [0, 1];
        let (streams, coupled, mapping) = match fixed[18] {
            0 if (1..=2).contains(&channels) => (1, channels - 1, &stereo[..usize::from(channels)]),
            1 | 255 if channels > 0 => {
                let table = head.get(19..21 + usize::from(channels)).ok_or_else(short)?;
                (table[0], table[1], &table[2..])
            }
            family => {
                return Err(format!(
                    "is Opus of {channels} channels in mapping family {family}, which cannot be decoded"
                ));
            }
        };
        let inner = OpusMSDecoder::new(
            RATE as i32,
            i32::from(channels),
            i32::from(streams),
            i32::from(coupled),
            mapping,
        )
        .map_err(|_| short())?;
        let gain = i16::from_le_bytes([fixed[16], fixed[17]]);
        let channels = usize::from(channels);
        Ok(Self {
            inner,
            channels,
            skip: usize::from(u16::from_le_bytes([fixed[10], fixed[11]])),
            gain: 10_f32.powf(f32::from(gain) / (20.0 * 256.0)),
            decoded: vec![0; LONGEST * channels],
        })
    }

    /// The mean of the channels, without the last `trimmed` samples.
    pub(super) fn decode(
        &mut self,
        packet: &[u8],
        trimmed: u64,
        mono: &mut Vec<f32>,
    ) -> Result<(), &'static str> {
        mono.clear();
        // To the decoder that is a lost packet, of which it would make something up.
        if packet.is_empty() {
            return Err("an empty Opus packet");
        }
        let length = i32::try_from(packet.len()).map_err(|_| "an Opus packet is too long")?;
        let count = self
            .inner
            .decode(
                Some(packet),
                length,
                &mut self.decoded,
                LONGEST as i32,
                false,
            )
            .map_err(|_| "an invalid Opus packet")?;
        let count = usize::try_from(count).unwrap_or(0).min(LONGEST);
        let skipped = self.skip.min(count);
        self.skip -= skipped;
        let kept = count.saturating_sub(usize::try_from(trimmed).unwrap_or(usize::MAX));
        let scale = self.gain / (32_768.0 * self.channels as f32);
        let frames = self.decoded.chunks_exact(self.channels);
        let sums = frames.map(|frame| frame.iter().map(|&sample| i32::from(sample)).sum::<i32>());
        mono.extend(sums.take(kept).skip(skipped).map(|sum| sum as f32 * scale));
        Ok(())
    }
}
