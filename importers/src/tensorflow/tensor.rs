//! Types, shapes and values as TensorFlow's messages have them: `framework/{types,tensor,tensor_shape}.proto` of
//! 2.17.

use burn::tensor::{BoolStore, DType};
use bytes::Bytes;

use crate::Dtype;
use crate::data::{self, VIEW_MARGIN};
use crate::protobuf::{Field, Message, Refusal};

/// The most dimensions that a tensor of TensorFlow has.
const MOST_DIMENSIONS: usize = 254;

/// An element type, and how many bytes an element takes where that is fixed.
pub(super) fn dtype(code: u64) -> Option<(Dtype, Option<usize>)> {
    let listed = |name: &str| Dtype::Other(name.to_owned());
    // A reference to a variable has its type, counted from 100.
    Some(match code % 100 {
        1 => (Dtype::F32, Some(4)),
        2 => (Dtype::F64, Some(8)),
        3 | 13 => (Dtype::I32, Some(4)),
        4 | 12 => (Dtype::U8, Some(1)),
        5 | 15 => (Dtype::I16, Some(2)),
        6 | 11 => (Dtype::I8, Some(1)),
        7 => (listed("string"), None),
        8 => (listed("complex64"), Some(8)),
        9 => (Dtype::I64, Some(8)),
        10 => (Dtype::Bool, Some(1)),
        14 => (Dtype::BF16, Some(2)),
        16 | 17 => (Dtype::U16, Some(2)),
        18 => (listed("complex128"), Some(16)),
        19 => (Dtype::F16, Some(2)),
        20 => (listed("resource"), None),
        21 => (listed("variant"), None),
        22 => (Dtype::U32, Some(4)),
        23 => (Dtype::U64, Some(8)),
        24 => (listed("float8_e5m2"), Some(1)),
        25 => (listed("float8_e4m3fn"), Some(1)),
        26 => (listed("float8_e4m3fnuz"), Some(1)),
        27 => (listed("float8_e4m3b11fnuz"), Some(1)),
        28 => (listed("float8_e5m2fnuz"), Some(1)),
        29 => (listed("int4"), Some(1)),
        30 => (listed("uint4"), Some(1)),
        31 => (listed("int2"), Some(1)),
        32 => (listed("uint2"), Some(1)),
        _ => return None,
    })
}

/// The code of a type that can be written.
pub(super) fn code(dtype: DType) -> Option<u64> {
    Some(match dtype {
        DType::F32 => 1,
        DType::F64 => 2,
        DType::I32 => 3,
        DType::U8 => 4,
        DType::I16 => 5,
        DType::I8 => 6,
        DType::I64 => 9,
        DType::Bool(BoolStore::Native) => 10,
        DType::BF16 => 14,
        DType::U16 => 17,
        DType::F16 => 19,
        DType::U32 => 22,
        DType::U64 => 23,
        _ => return None,
    })
}

/// Reads a `TensorShapeProto` whose sizes are all known.
pub(super) fn shape(message: &Message) -> Result<Vec<u64>, Refusal> {
    let mut shape = Vec::new();
    for field in message.fields() {
        let field = field?;
        match field.number {
            2 => {
                let mut size = 0;
                for inner in field.message()?.fields() {
                    let inner = inner?;
                    if inner.number == 1 {
                        size = inner.size()?;
                    }
                }
                if shape.len() == MOST_DIMENSIONS {
                    return Err((
                        field.at,
                        format!("a shape of more than {MOST_DIMENSIONS} dimensions"),
                    ));
                }
                shape.push(size);
            }
            3 if field.unsigned()? != 0 => {
                return Err((field.at, "a shape of unknown rank".to_owned()));
            }
            _ => {}
        }
    }
    Ok(shape)
}

/// How a tensor lies in memory: everything about it but its values.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) dtype: Dtype,
    /// The type by its number in the file.
    pub(super) code: u64,
    /// The size of an element, if it is fixed.
    pub(super) size: Option<usize>,
    pub(super) shape: Vec<u64>,
    pub(super) elements: u64,
    /// The size of all elements; zero where it is not known.
    pub(super) bytes: u64,
}

impl Layout {
    /// The error is a reason.
    pub(super) fn new(code: u64, shape: Vec<u64>) -> Result<Self, String> {
        let (dtype, size) = dtype(code).ok_or_else(|| format!("its type {code} is not known"))?;
        let too_large = || format!("its shape {shape:?} is larger than any file");
        let elements = data::elements(&shape).ok_or_else(too_large)?;
        let bytes = elements.checked_mul(size.unwrap_or(0) as u64);
        let bytes = bytes
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .ok_or_else(too_large)?;
        if shape.iter().any(|size| usize::try_from(*size).is_err()) {
            return Err(too_large());
        }
        Ok(Self {
            dtype,
            code,
            size,
            shape,
            elements,
            bytes,
        })
    }

    /// Refuses what a file of `length` bytes should not grow to, though one value may stand for many.
    pub(super) fn bounded(&self, length: usize) -> Result<(), String> {
        if self.bytes <= (length as u64).saturating_add(VIEW_MARGIN) {
            return Ok(());
        }
        let (shape, bytes) = (&self.shape, self.bytes);
        Err(format!(
            "its shape {shape:?} takes {bytes} bytes, beyond what a file of {length} may repeat"
        ))
    }

    pub(super) fn sizes(&self) -> Vec<usize> {
        self.shape.iter().map(|size| *size as usize).collect()
    }
}

/// A `TensorProto`: its values are one run of bytes, or repeated numbers of which the last is repeated.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    message: Message,
    pub(super) layout: Layout,
}

impl Tensor {
    /// Reads type and shape; the file is `length` bytes long.
    pub(super) fn read(message: Message, length: usize) -> Result<Self, Refusal> {
        let (mut code, mut sizes) = (0, Vec::new());
        for field in message.fields() {
            let field = field?;
            match field.number {
                1 => code = field.unsigned()?,
                2 => sizes = shape(&field.message()?)?,
                _ => {}
            }
        }
        Self::of(message, code, sizes, length)
    }

    /// The values of `message`, whose type and shape are known from elsewhere.
    pub(super) fn of(
        message: Message,
        code: u64,
        sizes: Vec<u64>,
        length: usize,
    ) -> Result<Self, Refusal> {
        let refuse = |reason| (message.at(), reason);
        let layout = Layout::new(code, sizes).map_err(refuse)?;
        layout.bounded(length).map_err(refuse)?;
        Ok(Self { message, layout })
    }

    /// The bytes of all elements, little-endian. They lie in the file where it has them so.
    pub(super) fn bytes(&self) -> Result<Bytes, Refusal> {
        let layout = &self.layout;
        let (Some(size), Some(values)) = (layout.size, Values::of(layout.code)) else {
            return Err((
                self.message.at(),
                format!("the type {} cannot be read", layout.dtype),
            ));
        };
        let wanted = layout.bytes as usize;
        let mut found: Vec<u8> = Vec::new();
        let mut run: Option<Bytes> = None;
        for field in self.message.fields() {
            let field = field?;
            let bytes = match field.number {
                4 => {
                    let bytes = field.bytes()?;
                    if bytes.is_empty() {
                        continue;
                    }
                    if bytes.len() != wanted {
                        let reason = format!(
                            "its content is {} bytes, its shape takes {wanted}",
                            bytes.len()
                        );
                        return Err((field.at, reason));
                    }
                    bytes
                }
                number if number == values.field => values.read(&field, size)?,
                _ => continue,
            };
            match run.take() {
                None if found.is_empty() => run = Some(bytes),
                before => {
                    found.extend(before.unwrap_or_default());
                    found.extend_from_slice(&bytes);
                }
            }
            if found.len() > wanted {
                break;
            }
        }
        let mut bytes = run.unwrap_or_else(|| found.into());
        if bytes.len() > wanted {
            let reason = format!(
                "it has {} values, its shape takes {}",
                bytes.len() / size,
                layout.elements
            );
            return Err((self.message.at(), reason));
        }
        if bytes.len() < wanted {
            let last = match bytes.len().checked_sub(size) {
                Some(at) => bytes.slice(at..),
                None => Bytes::from(vec![0; size]),
            };
            let mut whole = Vec::with_capacity(wanted);
            whole.extend_from_slice(&bytes);
            while whole.len() < wanted {
                whole.extend_from_slice(&last);
            }
            bytes = whole.into();
        }
        Ok(bytes)
    }
}

/// The repeated field that holds the values of a type.
struct Values {
    field: u32,
    fixed: bool,
}

impl Values {
    fn of(code: u64) -> Option<Self> {
        let (field, fixed) = match code % 100 {
            1 => (5, true),
            2 => (6, true),
            3..=6 | 11..=13 | 15..=17 => (7, false),
            9 => (10, false),
            10 => (11, false),
            14 | 19 => (13, false),
            22 => (16, false),
            23 => (17, false),
            _ => return None,
        };
        Some(Self { field, fixed })
    }

    fn read(&self, field: &Field, size: usize) -> Result<Bytes, Refusal> {
        if self.fixed {
            return field.packed(size);
        }
        let mut bytes = Vec::new();
        field.varints(|value| bytes.extend_from_slice(&value.to_le_bytes()[..size]))?;
        Ok(bytes.into())
    }
}
