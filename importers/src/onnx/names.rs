//! What a tensor is called in the model that was exported, and how its axes lie.
//!
//! Exporters keep the name of a parameter that they leave as it is. What they transpose, or fold a norm into,
//! they call `onnx::MatMul_301` or `val_59`. Such a tensor's place in the graph still says what it was: the
//! module of the node that takes it, which the node's name or the exporter's note spells, and the name of the
//! bias that is added behind it.

use std::sync::Arc;

use super::flow::Flow;
use super::graph::{Graph, Node};
use crate::checkpoint::{Layout, Place};

/// What a tensor is to the node that takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The weight of a linear layer, as `[in, out]` or, where that is true, `[out, in]`.
    Linear {
        out_first: bool,
    },
    Convolution,
    /// Another parameter, by the name that PyTorch gives it.
    Other(&'static str),
}

/// Where a tensor is taken first, and as what.
pub(super) fn place(
    graph: &Graph,
    flow: &Arc<Flow>,
    value: &str,
    rank: usize,
    position: Option<&Position>,
) -> Option<Place> {
    let (node, first, _) = graph.first_use(value)?;
    let leaf = match position.map(|position| position.role) {
        Some(Role::Linear { .. } | Role::Convolution) => Some("weight"),
        Some(Role::Other(leaf)) => Some(leaf),
        None if rank == 1 && first.op == "Add" => Some("bias"),
        None => None,
    };
    let norm = first.op.ends_with("Normalization");
    let weight = position.and_then(Position::weight_beside);
    let weight = weight.and_then(|weight| graph.tensors.get(weight));
    Some(Place {
        graph: 0,
        joint: flow.joint(graph, node),
        flow: flow.clone(),
        leaf,
        norm,
        beside: weight.map(|weight| weight.shape.clone()),
    })
}

/// How many nodes a value is followed through.
const MOST_HOPS: usize = 6;

/// A tensor's place in the graph.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position<'a> {
    node: Node<'a>,
    pub(super) role: Role,
}

impl<'a> Position<'a> {
    /// Follows `value` to the first node that takes it as a parameter.
    pub(super) fn find(graph: &Graph<'a>, value: &str) -> Option<Self> {
        let mut value = value;
        let mut transposed = false;
        for _ in 0..MOST_HOPS {
            let found = graph.uses(value).find_map(|(node, place)| {
                let role = role(node, place, transposed)?;
                Some(Self { node, role })
            });
            if found.is_some() {
                return found;
            }
            let passes = |op: &str, place| {
                place == 0 && matches!(op, "DequantizeLinear" | "Cast" | "Identity" | "Transpose")
            };
            let (node, _) = graph
                .uses(value)
                .find(|(node, place)| passes(node.op, *place))?;
            if node.op == "Transpose" {
                let order = node.integers("perm");
                if !matches!(order[..], [] | [1, 0]) {
                    return None;
                }
                transposed = !transposed;
            }
            value = node.output()?;
        }
        None
    }

    pub(super) fn layout(&self) -> Layout {
        match self.role {
            Role::Linear { out_first: false } => Layout::InOut,
            _ => Layout::OutIn,
        }
    }

    /// The parameter's name.
    pub(super) fn name(&self, graph: &Graph<'a>) -> Option<String> {
        let leaf = match self.role {
            Role::Linear { .. } | Role::Convolution => "weight",
            Role::Other(leaf) => leaf,
        };
        let bias = match self.role {
            Role::Linear { .. } => added(graph, self.node),
            _ => None,
        };
        // `in_proj_bias` stands beside `in_proj_weight` in a module that has other weights too.
        if let Some(path) = bias.and_then(|bias| bias.strip_suffix("_bias")) {
            return Some(format!("{path}_weight"));
        }
        let module =
            module(self.node).or_else(|| bias?.strip_suffix(".bias").map(str::to_owned))?;
        Some(format!("{module}.{leaf}"))
    }

    /// The weight beside a convolution's bias.
    pub(super) fn weight_beside(&self) -> Option<&'a str> {
        match (self.node.op, self.role) {
            ("Conv", Role::Other("bias")) => self.node.input(1),
            ("QLinearConv", Role::Other("bias")) => self.node.input(3),
            _ => None,
        }
    }
}

fn role(node: Node, place: usize, transposed: bool) -> Option<Role> {
    let linear = |out_first: bool| {
        Some(Role::Linear {
            out_first: out_first != transposed,
        })
    };
    match (node.op, place) {
        ("MatMul" | "MatMulInteger" | "MatMulIntegerToFloat" | "DynamicQuantizeMatMul", 1)
        | ("QLinearMatMul", 3) => linear(false),
        ("FusedMatMul", 1) => linear(node.integer("transB") == Some(1)),
        ("MatMulNBits", 1) => linear(true),
        ("Gemm", 1) | ("QGemm", 3) => linear(node.integer("transB") == Some(1)),
        _ if transposed => None,
        ("Conv" | "ConvInteger", 1) | ("QLinearConv", 3) => Some(Role::Convolution),
        ("Conv" | "Gemm", 2) | ("QLinearConv", 8) | ("QGemm", 6) | ("MatMulNBits", 5) => {
            Some(Role::Other("bias"))
        }
        ("Gather" | "GatherBlockQuantized", 0) => Some(Role::Other("weight")),
        (
            "LayerNormalization"
            | "BatchNormalization"
            | "InstanceNormalization"
            | "GroupNormalization",
            1,
        ) => Some(Role::Other("weight")),
        (
            "LayerNormalization"
            | "BatchNormalization"
            | "InstanceNormalization"
            | "GroupNormalization",
            2,
        ) => Some(Role::Other("bias")),
        ("BatchNormalization", 3) => Some(Role::Other("running_mean")),
        ("BatchNormalization", 4) => Some(Role::Other("running_var")),
        _ => None,
    }
}

/// The name of the bias that is added to a product.
fn added<'a>(graph: &Graph<'a>, product: Node<'a>) -> Option<&'a str> {
    let mut value = product.output()?;
    for _ in 0..MOST_HOPS {
        let passes = |op: &str| {
            matches!(
                op,
                "Cast" | "Mul" | "QuantizeLinear" | "DequantizeLinear" | "Identity"
            )
        };
        let (node, place) = graph.uses(value).next()?;
        if node.op == "Add" {
            let other = node.input(1 - place.min(1))?;
            // A bias that is quantized comes out of a node that bears its name.
            let other = other
                .strip_suffix("_DequantizeLinear_Output")
                .unwrap_or(other);
            return is_path(other).then_some(other);
        }
        if !passes(node.op) {
            return None;
        }
        value = node.output()?;
    }
    None
}

/// Whether a name is one of the exported model's own: a dotted path that ends in a word.
pub(super) fn is_path(name: &str) -> bool {
    name.contains('.')
        && !name.contains("::")
        && !name.contains('/')
        && name.split('.').all(|part| !part.is_empty())
}

/// The dotted path of the module that a node was exported from.
fn module(node: Node) -> Option<String> {
    if let Some(scopes) = node.property("pkg.torch.onnx.name_scopes") {
        // A list as Python writes it, outermost first; the last is the operation's own.
        let scopes = scopes.trim_matches(['[', ']']);
        let (scopes, _operation) = scopes.rsplit_once(", ")?;
        let module = scopes
            .rsplit_once(", ")
            .map_or(scopes, |(_, module)| module);
        let module = module.trim_matches(['\'', '"']);
        return (!module.is_empty()).then(|| module.to_owned());
    }
    let mut parts: Vec<&str> = Vec::new();
    let path = node.name.strip_prefix('/').unwrap_or(node.name);
    let (path, _operation) = path.rsplit_once('/')?;
    for part in path.split('/') {
        // An item of a sequence comes behind the sequence: `ff/ff.0`.
        let is_item = |last: &&str| {
            part.strip_prefix(*last)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        if parts.last().is_some_and(is_item) {
            parts.pop();
        }
        parts.push(part);
    }
    Some(parts.join("."))
}
