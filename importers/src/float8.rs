//! Floats of eight bits, as safetensors and PyTorch name them.
//!
//! `E4M3` and `E5M2` are those of <https://arxiv.org/abs/2209.05433>, their `FNUZ` variants those of
//! <https://arxiv.org/abs/2206.02915>, and `E8M0` is the scale of OCP's Microscaling Formats 1.0. Every one of
//! them is exact in `f32`.

/// A float of eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Float8 {
    E4M3,
    E5M2,
    /// Without infinities and negative zero, whose place a single not-a-number takes.
    E4M3Fnuz,
    /// Likewise.
    E5M2Fnuz,
    /// A power of two without a sign.
    E8M0,
}

impl Float8 {
    pub(crate) const ALL: [Self; 5] = [
        Self::E4M3,
        Self::E5M2,
        Self::E4M3Fnuz,
        Self::E5M2Fnuz,
        Self::E8M0,
    ];

    /// Its name in safetensors.
    pub fn name(self) -> &'static str {
        match self {
            Self::E4M3 => "F8_E4M3",
            Self::E5M2 => "F8_E5M2",
            Self::E4M3Fnuz => "F8_E4M3FNUZ",
            Self::E5M2Fnuz => "F8_E5M2FNUZ",
            Self::E8M0 => "F8_E8M0",
        }
    }

    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|float| float.name() == name)
    }

    /// The values of all bytes.
    fn table(self) -> [f32; 256] {
        let mut table = [0.0; 256];
        for (byte, value) in (0..=u8::MAX).zip(&mut table) {
            *value = self.value(byte);
        }
        table
    }

    pub(crate) fn value(self, byte: u8) -> f32 {
        let (mantissa_bits, bias, not_a_number) = match self {
            Self::E4M3 => (3, 7, byte & 0x7f == 0x7f),
            Self::E5M2 => (2, 15, byte & 0x7f > 0x7c),
            Self::E4M3Fnuz => (3, 8, byte == 0x80),
            Self::E5M2Fnuz => (2, 16, byte == 0x80),
            Self::E8M0 => {
                let exponent = i32::from(byte) - 127;
                return if byte == 0xff {
                    f32::NAN
                } else {
                    // The smallest is a subnormal number, to which `powi` would come by a reciprocal.
                    (f64::from(exponent)).exp2() as f32
                };
            }
        };
        if not_a_number {
            return f32::NAN;
        }
        let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
        if matches!(self, Self::E5M2) && byte & 0x7f == 0x7c {
            return sign * f32::INFINITY;
        }
        let exponent = i32::from((byte & 0x7f) >> mantissa_bits);
        let mantissa = f32::from(byte & ((1 << mantissa_bits) - 1));
        let steps = (1 << mantissa_bits) as f32;
        let (fraction, exponent) = if exponent == 0 {
            (mantissa / steps, 1 - bias)
        } else {
            (1.0 + mantissa / steps, exponent - bias)
        };
        sign * fraction * (exponent as f32).exp2()
    }

    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let table = self.table();
        let value = |byte: &u8| table[usize::from(*byte)];
        bytes.iter().map(value).collect()
    }
}

/// The value of a float of four bits, two of them its exponent's, of OCP's Microscaling Formats 1.0.
pub(crate) fn e2m1(bits: u8) -> f32 {
    const VALUES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let value = VALUES[usize::from(bits & 7)];
    if bits & 8 == 0 { value } else { -value }
}
