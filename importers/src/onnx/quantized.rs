//! Weights that were quantized, and what gives their numbers back.
//!
//! `DequantizeLinear`, by tensor, axis or block, is that of the ONNX operators; the operators on integers are
//! those that ONNX Runtime's quantizer writes. `MatMulNBits` is that of `com.microsoft` in
//! `docs/ContribOperators.md` of ONNX Runtime 1.20.

use bytes::Bytes;
use half::{bf16, f16};

use super::graph::{Graph, Node};
use super::tensor::{Owned, Tensor};
use crate::checkpoint::Dtype;

/// How to read a quantized weight.
#[derive(Debug)]
pub(super) struct Quantized {
    values: Owned,
    scale: Owned,
    /// What the scales are to be multiplied with: the input's, where a bias is as fine as the product that it is added to.
    factor: Option<Owned>,
    /// Where it is left out, zero is in the middle.
    zero: Option<Owned>,
    blocks: Blocks,
    pub(super) shape: Vec<usize>,
}

/// Which elements share a scale.
#[derive(Debug, Clone, Copy)]
enum Blocks {
    All,
    /// Those of one index along the axis.
    Axis(usize),
    /// So many along the axis, of one index along each other one.
    Along(usize, usize),
    /// So many along a row, whose numbers are packed into so many bits.
    Packed {
        size: usize,
        bits: usize,
    },
}

/// The inputs of a node that says how its weight was quantized.
struct Inputs {
    scale: usize,
    zero: usize,
    /// The input's own scale, where that is a part of this one's.
    factor: usize,
    /// The axis of one scale each, where there are several.
    axis: i64,
}

impl Quantized {
    /// What gives the numbers of `tensor` back, if a node says so; and the names of its scales and zeros.
    pub(super) fn find<'a>(
        graph: &Graph<'a>,
        tensor: &Tensor<'a>,
        map: &Bytes,
    ) -> Result<Option<(Self, Vec<&'a str>)>, String> {
        for (node, place) in graph.uses(tensor.name) {
            if (node.op, place) == ("MatMulNBits", 1) {
                return Self::packed(graph, tensor, node, map).map(Some);
            }
            // A table may be looked up first, and dequantized then.
            let (node, place) = match (node.op, place) {
                ("Gather", 0) => {
                    let Some(output) = node.output() else {
                        continue;
                    };
                    let mut behind = graph.uses(output);
                    let takes = |(node, place): &(Node<'_>, usize)| {
                        matches!(
                            (node.op, *place),
                            ("DequantizeLinear", 0) | ("QLinearAdd" | "QLinearMul", 0 | 3)
                        )
                    };
                    match behind.find(takes) {
                        Some(found) => found,
                        None => continue,
                    }
                }
                found => (node, found.1),
            };
            const NONE: usize = usize::MAX;
            let factor = match (node.op, place) {
                ("QLinearConv", 8) | ("QGemm", 6) => 1,
                _ => NONE,
            };
            let inputs = match (node.op, place) {
                // Its parts are those of the weight and of the input.
                ("QLinearConv", 8) | ("QGemm", 6) => (4, NONE, 0),
                ("QLinearAdd" | "QLinearMul", 0 | 3) => (place + 1, place + 2, 0),
                ("DequantizeLinear", 0) => (1, 2, node.integer("axis").unwrap_or(1)),
                ("QLinearMatMul", 3) => (4, 5, -1),
                ("QLinearConv", 3) => (4, 5, 0),
                ("QGemm", 3) if node.integer("transB") == Some(1) => (4, 5, 0),
                ("QGemm", 3) => (4, 5, -1),
                ("MatMulIntegerToFloat", 1) => (3, 5, -1),
                ("DynamicQuantizeMatMul", 1) => (2, 3, -1),
                ("MatMulInteger", 1) => (NONE, 3, -1),
                ("ConvInteger", 1) => (NONE, 3, 0),
                _ => continue,
            };
            let (scale, zero, axis) = inputs;
            let inputs = Inputs {
                scale,
                zero,
                factor,
                axis,
            };
            return Self::linear(graph, tensor, node, &inputs, map).map(Some);
        }
        Ok(None)
    }

    fn linear<'a>(
        graph: &Graph<'a>,
        tensor: &Tensor<'a>,
        node: Node<'a>,
        inputs: &Inputs,
        map: &Bytes,
    ) -> Result<(Self, Vec<&'a str>), String> {
        let scale = match inputs.scale {
            usize::MAX => scale_behind(graph, node),
            place => node.input(place),
        };
        let scale = scale.ok_or_else(|| format!("its {} has no scale", node.op))?;
        let constant = |name: &str| {
            let found = graph.tensors.get(name);
            found.ok_or_else(|| format!("`{name}` of its {} is no constant", node.op))
        };
        let scales = constant(scale)?;
        if !scales.kind.is_float() {
            return Err(format!("its scale `{scale}` is of {}", scales.kind.dtype()));
        }
        let mut used = vec![scale];
        let zeros = match node.input(inputs.zero) {
            None => None,
            Some(zero) => {
                used.push(zero);
                Some(constant(zero)?)
            }
        };
        let factor = match node.input(inputs.factor) {
            None => None,
            Some(factor) => {
                let found = constant(factor)?;
                if !found.kind.is_float() || found.elements() != 1 {
                    return Err(format!(
                        "the scale `{factor}` of its input is not one number"
                    ));
                }
                Some(found)
            }
        };
        let rank = tensor.shape.len();
        let axis = if inputs.axis < 0 {
            inputs.axis + rank as i64
        } else {
            inputs.axis
        };
        let axis = usize::try_from(axis).unwrap_or(usize::MAX);
        let size = tensor.shape.get(axis).copied();
        let along = node.integer("block_size").unwrap_or(0);
        let along = usize::try_from(along).unwrap_or(0);
        let blocks = match size {
            _ if scales.elements() == 1 => Blocks::All,
            Some(size) if along > 0 => {
                let mut expected = tensor.shape.clone();
                expected[axis] = size.div_ceil(along);
                if scales.shape != expected {
                    return Err(format!(
                        "blocks of {along} along axis {axis} of {:?} have scales of {expected:?}, not {:?}",
                        tensor.shape, scales.shape
                    ));
                }
                Blocks::Along(axis, along)
            }
            Some(size) if scales.elements() == size => Blocks::Axis(axis),
            _ => {
                return Err(format!(
                    "its shape is {:?}, which scales of {:?} do not fit along axis {axis}",
                    tensor.shape, scales.shape
                ));
            }
        };
        if let Some(zeros) = zeros
            && zeros.elements() != scales.elements()
            && zeros.elements() != 1
        {
            return Err(format!(
                "it has scales of {:?} and zeros of {:?}",
                scales.shape, zeros.shape
            ));
        }
        let quantized = Self {
            values: tensor.owned(map),
            scale: scales.owned(map),
            factor: factor.map(|factor| factor.owned(map)),
            zero: zeros.map(|zeros| zeros.owned(map)),
            blocks,
            shape: tensor.shape.clone(),
        };
        Ok((quantized, used))
    }

    fn packed<'a>(
        graph: &Graph<'a>,
        tensor: &Tensor<'a>,
        node: Node<'a>,
        map: &Bytes,
    ) -> Result<(Self, Vec<&'a str>), String> {
        let attribute = |name: &str| {
            let value = node
                .integer(name)
                .and_then(|value| usize::try_from(value).ok());
            value
                .filter(|value| *value > 0)
                .ok_or_else(|| format!("its MatMulNBits has no `{name}`"))
        };
        let (rows, columns) = (attribute("N")?, attribute("K")?);
        let size = attribute("block_size")?;
        let bits = node.integer("bits").unwrap_or(4);
        let bits = match bits {
            2 | 4 | 8 => bits as usize,
            other => {
                return Err(format!(
                    "its MatMulNBits has {other} bits; 2, 4 and 8 are read"
                ));
            }
        };
        if node.input(4).is_some() {
            return Err("its MatMulNBits has a `g_idx`, which is not supported".to_owned());
        }
        let constant = |place: usize| {
            let Some(name) = node.input(place) else {
                return Ok(None);
            };
            let found = graph.tensors.get(name);
            found
                .map(|tensor| Some((name, tensor)))
                .ok_or_else(|| format!("`{name}` of its MatMulNBits is no constant"))
        };
        let (scale, scales) = constant(2)?.ok_or("its MatMulNBits has no scales")?;
        let zeros = constant(3)?;
        let blocks = columns.div_ceil(size);
        let bytes = size.checked_mul(bits).map(|bits| bits.div_ceil(8));
        let expected = bytes
            .and_then(|bytes| rows.checked_mul(blocks)?.checked_mul(bytes))
            .filter(|_| rows.checked_mul(columns).is_some());
        let fits = expected == Some(tensor.elements())
            && tensor.kind.bits == 8
            && Some(scales.elements()) == rows.checked_mul(blocks)
            && scales.kind.is_float();
        // Only what fits so far has products that do not overflow.
        let zeros_fit = |(_, zeros): (&str, &Tensor)| {
            let count = if zeros.kind.is_float() {
                rows * blocks
            } else {
                rows * (blocks * bits).div_ceil(8)
            };
            zeros.elements() == count
        };
        if !(fits && zeros.is_none_or(zeros_fit)) {
            return Err(format!(
                "{rows} rows of {columns} numbers of {bits} bits in blocks of {size} do not take {:?} bytes and \
                 {:?} scales",
                tensor.shape, scales.shape
            ));
        }
        let mut used = vec![scale];
        used.extend(zeros.map(|(name, _)| name));
        let quantized = Self {
            values: tensor.owned(map),
            scale: scales.owned(map),
            factor: None,
            zero: zeros.map(|(_, zeros)| zeros.owned(map)),
            blocks: Blocks::Packed { size, bits },
            shape: vec![rows, columns],
        };
        Ok((quantized, used))
    }

    /// The values, as the type of the scales has them.
    pub(super) fn read(&self) -> Result<Vec<f32>, String> {
        let mut scale = self.scale.floats()?;
        if let Some(factor) = &self.factor {
            let factor = factor.floats()?.first().copied().unwrap_or(1.0);
            scale.iter_mut().for_each(|scale| *scale *= factor);
        }
        let mut values = if let Blocks::Packed { size, bits } = self.blocks {
            self.unpacked(&scale, size, bits)?
        } else {
            let zero = match &self.zero {
                Some(zero) => zero.floats()?,
                None => vec![0.0],
            };
            let mut values = self.values.floats()?;
            let inner = |axis: usize| self.shape[axis + 1..].iter().product::<usize>().max(1);
            for (place, value) in values.iter_mut().enumerate() {
                let block = match self.blocks {
                    Blocks::Axis(axis) => place / inner(axis) % self.shape[axis],
                    Blocks::Along(axis, along) => {
                        let (inner, size) = (inner(axis), self.shape[axis]);
                        let (row, at) = (place / inner / size, place / inner % size);
                        (row * size.div_ceil(along) + at / along) * inner + place % inner
                    }
                    _ => 0,
                };
                let zero = if zero.len() == 1 {
                    zero[0]
                } else {
                    zero[block]
                };
                *value = (*value - zero) * scale[block];
            }
            values
        };
        match self.scale.kind.dtype() {
            Dtype::F16 => {
                for value in &mut values {
                    *value = f16::from_f32(*value).to_f32();
                }
            }
            Dtype::BF16 => {
                for value in &mut values {
                    *value = bf16::from_f32(*value).to_f32();
                }
            }
            _ => {}
        }
        Ok(values)
    }

    fn unpacked(&self, scale: &[f32], size: usize, bits: usize) -> Result<Vec<f32>, String> {
        let [rows, columns] = self.shape[..] else {
            return Ok(Vec::new());
        };
        let blocks = columns.div_ceil(size);
        let bytes = self.values.bytes()?;
        // The first number is in a byte's lowest bits.
        let number = |bytes: &[u8], place: usize| {
            let bit = place * bits;
            let byte = bytes.get(bit / 8).copied().unwrap_or(0);
            (byte >> (bit % 8)) & (u8::MAX >> (8 - bits))
        };
        let middle = f32::from(1_u8 << (bits - 1));
        let zeros: Vec<f32> = match &self.zero {
            None => vec![middle; rows * blocks],
            Some(zero) if zero.kind.is_float() => zero.floats()?,
            Some(zero) => {
                let bytes = zero.bytes()?;
                let row = (blocks * bits).div_ceil(8);
                let of = |at: usize| {
                    let bytes = bytes.get(at / blocks * row..).unwrap_or_default();
                    f32::from(number(bytes, at % blocks))
                };
                (0..rows * blocks).map(of).collect()
            }
        };
        let length = (size * bits).div_ceil(8);
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            for column in 0..columns {
                let block = row * blocks + column / size;
                let bytes = bytes.get(block * length..).unwrap_or_default();
                let value = f32::from(number(bytes, column % size));
                values.push((value - zeros[block]) * scale[block]);
            }
        }
        Ok(values)
    }
}

/// The weight's scale behind a product of integers: the product is cast, and multiplied with the product of
/// both scales, of which one is constant.
fn scale_behind<'a>(graph: &Graph<'a>, node: Node<'a>) -> Option<&'a str> {
    let (cast, _) = graph
        .uses(node.output()?)
        .find(|(node, _)| node.op == "Cast")?;
    let (mul, place) = graph
        .uses(cast.output()?)
        .find(|(node, _)| node.op == "Mul")?;
    let product = graph.product(mul.input(1 - place.min(1))?)?;
    let mut inputs = product.inputs();
    inputs.find(|name| graph.tensors.contains_key(name))
}
