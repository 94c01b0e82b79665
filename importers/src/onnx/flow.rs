//! Which of two tensors a graph needs first.
//!
//! The order of a file's nodes is the exporter's; what is certain is what is computed from what. Branches that
//! run side by side, such as the projections of an attention, are told apart by where their results meet: as
//! which input of a node whose inputs are not alike. Those that begin at different inputs of the model, such as an
//! encoder and a decoder's own part, come in the order of these.

use std::collections::HashMap;

use super::graph::Graph;

/// How many nodes a result is followed through.
const MOST_HOPS: usize = 16;

/// For each node, the nodes that its inputs come from.
#[derive(Debug)]
pub(crate) struct Flow {
    inputs: Vec<Vec<u32>>,
    /// Whether a node's inputs may change places.
    commutes: Vec<bool>,
    /// The first of the model's inputs that what a node gives depends on, by more than its shape.
    begins: Vec<Option<usize>>,
}

/// Where the result of a layer meets another: the node, and as which input.
pub(crate) type Joint = (usize, usize);

impl Flow {
    pub(super) fn new(graph: &Graph) -> Self {
        let mut makers: HashMap<&str, usize> = HashMap::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            makers.extend(node.outputs().map(|output| (output, index)));
        }
        let mut flow = Self {
            inputs: Vec::with_capacity(graph.nodes.len()),
            commutes: Vec::with_capacity(graph.nodes.len()),
            begins: Vec::with_capacity(graph.nodes.len()),
        };
        let places = graph.inputs.iter().enumerate();
        let places: HashMap<&str, usize> = places.map(|(place, name)| (*name, place)).collect();
        for node in &graph.nodes {
            let mut inputs = Vec::new();
            let mut begin: Option<usize> = None;
            for input in node.inputs().filter(|input| !input.is_empty()) {
                let from = match makers.get(input) {
                    Some(&maker) => {
                        inputs.push(maker as u32);
                        flow.begin(maker)
                    }
                    // Old files list their tensors among the inputs.
                    None if graph.tensors.contains_key(input) => None,
                    None => places.get(input).copied(),
                };
                begin = [begin, from].into_iter().flatten().min();
            }
            flow.inputs.push(inputs);
            let begin = begin.filter(|_| !matches!(node.op, "Shape" | "Size"));
            flow.begins.push(begin);
            let commutes = matches!(node.op, "Add" | "Mul" | "Sum" | "Max" | "Min" | "Mean");
            flow.commutes.push(commutes);
        }
        flow
    }

    /// Where the result of a node that takes a tensor meets another; the node itself if it is not clear.
    pub(super) fn joint(&self, graph: &Graph, node: usize) -> Joint {
        let mut at = node;
        for _ in 0..MOST_HOPS {
            let output = graph.nodes.get(at).and_then(|node| node.output());
            let &[(next, place)] = output.map_or(&[][..], |output| graph.uses_of(output)) else {
                break;
            };
            let op = graph.nodes[next].op;
            let mut others = self.inputs[next].iter().map(|&maker| maker as usize);
            if others.any(|other| other != at && self.begin(other).is_some()) {
                return (next, place);
            }
            let has_weights = op.starts_with("MatMul") || op.ends_with("Normalization");
            if has_weights || matches!(op, "Conv" | "Gemm") {
                break;
            }
            at = next;
        }
        (node, 0)
    }

    fn begin(&self, node: usize) -> Option<usize> {
        self.begins.get(node).copied().flatten()
    }

    /// Whether what passes one joint has to be there for the other, or begins at an earlier input.
    pub(crate) fn is_before(&self, first: Joint, second: Joint) -> bool {
        if first.0 == second.0 {
            return first.1 < second.1 && self.commutes.get(first.0) == Some(&false);
        }
        let apart = || match (self.begin(first.0), self.begin(second.0)) {
            (Some(first_begin), Some(second_begin)) => {
                first_begin < second_begin && !self.leads(second.0, first.0)
            }
            _ => false,
        };
        self.leads(first.0, second.0) || apart()
    }

    /// Whether one node's result goes into the other's.
    fn leads(&self, first: usize, second: usize) -> bool {
        // Nodes stand behind what they take.
        let mut seen = vec![false; second.saturating_sub(first)];
        let mut left = vec![second];
        while let Some(node) = left.pop() {
            for &input in self.inputs.get(node).into_iter().flatten() {
                let input = input as usize;
                if input == first {
                    return true;
                }
                let place = input.checked_sub(first).and_then(|at| seen.get_mut(at));
                if let Some(seen) = place.filter(|seen| !**seen) {
                    *seen = true;
                    left.push(input);
                }
            }
        }
        false
    }
}
