//! Numbers of fewer than 16 bits, as `f32`.
//!
//! The 8-bit floats are those of Micikevicius et al., *FP8 Formats for Deep Learning*,
//! <https://arxiv.org/abs/2209.05433>; `FNUZ` has no negative zero and no infinities; the 4-bit float and the
//! 8-bit exponent are those of the OCP Microscaling specification 1.0.

/// An 8-bit float of 4 bits of exponent, without infinities.
pub(crate) fn e4m3fn(byte: u8) -> f32 {
    if byte & 0x7f == 0x7f {
        return f32::NAN.copysign(sign(byte));
    }
    float(byte, 3, 7)
}

/// The same with a bias of 8, and one NaN where negative zero would be.
pub(crate) fn e4m3fnuz(byte: u8) -> f32 {
    if byte == 0x80 {
        return f32::NAN;
    }
    float(byte, 3, 8)
}

/// An 8-bit float of 5 bits of exponent, which is the upper half of a half-precision one.
pub(crate) fn e5m2(byte: u8) -> f32 {
    half::f16::from_bits(u16::from(byte) << 8).to_f32()
}

/// The same with a bias of 16, and one NaN where negative zero would be.
pub(crate) fn e5m2fnuz(byte: u8) -> f32 {
    if byte == 0x80 {
        return f32::NAN;
    }
    float(byte, 2, 16)
}

/// A power of two.
pub(crate) fn e8m0(byte: u8) -> f32 {
    if byte == 0xff {
        return f32::NAN;
    }
    2_f32.powi(i32::from(byte) - 127)
}

/// A 4-bit float of 2 bits of exponent.
pub(crate) fn e2m1(bits: u8) -> f32 {
    const VALUES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let value = VALUES[usize::from(bits & 7)];
    if bits & 8 == 0 { value } else { -value }
}

fn sign(byte: u8) -> f32 {
    if byte & 0x80 == 0 { 1.0 } else { -1.0 }
}

/// A float of 8 bits, `mantissa` of them after the exponent of that bias, all of them finite.
fn float(byte: u8, mantissa: u32, bias: i32) -> f32 {
    let bits = byte & 0x7f;
    let exponent = i32::from(bits >> mantissa);
    let fraction = f32::from(bits & ((1 << mantissa) - 1)) / f32::from(1_u8 << mantissa);
    let value = if exponent == 0 {
        fraction * 2_f32.powi(1 - bias)
    } else {
        (1.0 + fraction) * 2_f32.powi(exponent - bias)
    };
    value * sign(byte)
}
