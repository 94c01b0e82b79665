//! Lays module, key map and checkpoint over each other, and fills the module when all of it fits.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, DType, Device, Int, Shape, Tensor, TensorData};

use crate::change::{rows_of, to_f32};
use crate::checkpoint::{Checkpoint, Dtype, Entry, Placement};
use crate::error::{FormatError, LoadError};
use crate::key_map::{Block, KeyMap, Source};
use crate::report::{KeyReport, Mismatch, Missing, Unexpected};

/// Fills every parameter of `module` from `checkpoint`, by the names of `map`.
///
/// Names, shapes and types are proven before the first tensor is read. Floats of any width become `f32`;
/// `f32` on a CPU device stays in the mapped file, unless a parameter is only some of a tensor's rows. The weight of a linear layer is read in PyTorch's
/// `[out, in]` layout and transposed by its strides, without a copy. `name` says in a report what was to
/// be loaded.
///
/// # Errors
/// [`LoadError::Keys`] with everything that is missing, unexpected or mis-shaped, or
/// [`LoadError::Format`] when a tensor's bytes cannot be read.
pub fn load<M: Module>(
    module: M,
    name: &str,
    map: &KeyMap,
    checkpoint: &Checkpoint,
) -> Result<M, LoadError> {
    let mut parameters = Parameters::default();
    module.visit(&mut parameters);
    let plan = plan(&parameters.found, name, map, checkpoint)?;
    if let Some(trace) = checkpoint.trace() {
        trace.record(placements(&parameters.found, &plan));
        return Err(FormatError::Traced.into());
    }
    let mut filler = Filler {
        plan,
        path: Path::default(),
        error: None,
    };
    let module = module.map(&mut filler);
    match filler.error {
        Some(error) => Err(error.into()),
        None => Ok(module),
    }
}

/// What a tensor of the checkpoint must go through on its way into the module.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    AsStored,
    /// PyTorch's `[out, in]` against Burn's `[in, out]`.
    Transposed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float,
    Int,
    Bool,
}

impl Kind {
    fn accepts(self, dtype: &Dtype) -> bool {
        let Some(dtype) = dtype.to_burn() else {
            return false;
        };
        match self {
            Kind::Float => dtype.is_float(),
            Kind::Int => dtype.is_int() || dtype.is_uint(),
            Kind::Bool => dtype.is_bool(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Float => "floats",
            Kind::Int => "integers",
            Kind::Bool => "booleans",
        }
    }
}

struct Parameter {
    path: String,
    /// The name that PyTorch gives the last segment, and what it was called before 2019.
    leaf: (String, Option<&'static str>),
    shape: Vec<usize>,
    layout: Layout,
    kind: Kind,
}

impl Parameter {
    /// The shape as the checkpoint stores it, with the other blocks of rows where it is one of several.
    fn stored_shape(&self, rows: Option<Block>) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.layout == Layout::Transposed {
            shape.reverse();
        }
        if let (Some(block), Some(first)) = (rows, shape.first_mut()) {
            *first = first.saturating_mul(block.count);
        }
        shape
    }

    /// The checkpoint keys that may hold it, best first.
    fn sources(&self, map: &KeyMap) -> Vec<Source> {
        let parent = self.path.rfind('.').map_or("", |dot| &self.path[..=dot]);
        let (leaf, former) = &self.leaf;
        let leaves = std::iter::once(&leaf[..]).chain(*former);
        leaves
            .flat_map(|leaf| map.sources(&format!("{parent}{leaf}")))
            .collect()
    }
}

/// The path of the parameter that a traversal is at.
#[derive(Default)]
struct Path {
    segments: Vec<String>,
    containers: Vec<String>,
}

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        // An enum's variant is a choice of type, not a level of names.
        if !container.starts_with("Enum:") {
            self.segments.push(name.to_owned());
        }
        self.containers.push(container.to_owned());
    }

    fn exit(&mut self) {
        if let Some(container) = self.containers.pop()
            && !container.starts_with("Enum:")
        {
            self.segments.pop();
        }
    }

    fn text(&self) -> String {
        self.segments.join(".")
    }
}

#[derive(Default)]
struct Parameters {
    path: Path,
    found: Vec<Parameter>,
}

impl Parameters {
    fn push(&mut self, shape: Shape, kind: Kind) {
        let leaf = self.path.segments.last().map_or("", |leaf| &leaf[..]);
        let container = self.path.containers.last().map_or("", |name| &name[..]);
        let linear = container == "Struct:Linear" && leaf == "weight";
        // Burn's norms say gamma and beta, as TensorFlow did and PyTorch's first BERT port after it.
        let leaf = match leaf {
            "gamma" => ("weight".to_owned(), Some("gamma")),
            "beta" => ("bias".to_owned(), Some("beta")),
            other => (other.to_owned(), None),
        };
        self.found.push(Parameter {
            path: self.path.text(),
            leaf,
            shape: shape.to_vec(),
            layout: if linear {
                Layout::Transposed
            } else {
                Layout::AsStored
            },
            kind,
        });
    }
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.push(param.lazy_shape(), Kind::Float);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.push(param.lazy_shape(), Kind::Int);
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.push(param.lazy_shape(), Kind::Bool);
    }
}

/// For each parameter's path, the tensor that fills it.
type Plan = HashMap<String, Fill>;

/// Where a parameter's data is, and what it must go through.
struct Fill {
    source: Source,
    entry: Entry,
    layout: Layout,
}

fn placements(parameters: &[Parameter], plan: &Plan) -> Vec<Placement> {
    let placed = parameters.iter().filter_map(|parameter| {
        let source = plan.get(&parameter.path)?.source.clone();
        let parent = parameter
            .path
            .rfind('.')
            .map_or("", |dot| &parameter.path[..=dot]);
        let parameter = format!("{parent}{}", parameter.leaf.0);
        Some(Placement { parameter, source })
    });
    placed.collect()
}

fn plan(
    parameters: &[Parameter],
    name: &str,
    map: &KeyMap,
    checkpoint: &Checkpoint,
) -> Result<Plan, Box<KeyReport>> {
    let mut plan = Plan::new();
    let mut used = std::collections::HashSet::new();
    let mut report = KeyReport {
        file: checkpoint.files.first().cloned().unwrap_or_default(),
        module: name.to_owned(),
        ..KeyReport::default()
    };
    for parameter in parameters {
        let sources = parameter.sources(map);
        let found = sources
            .iter()
            .find_map(|source| Some((source, checkpoint.get(&source.key)?)));
        let Some((source, entry)) = found else {
            let first = sources.into_iter().next();
            report.missing.push(Missing {
                key: first.map(|source| source.key).unwrap_or_default(),
                parameter: parameter.path.clone(),
                nearest: None,
            });
            continue;
        };
        let (key, rows) = (&source.key, source.rows);
        let seen = !used.insert(key.clone());
        let shape = parameter.stored_shape(rows);
        if entry.shape != shape || !parameter.kind.accepts(&entry.dtype) {
            // The other blocks of the same tensor have said so already.
            if seen && rows.is_some() {
                continue;
            }
            report.mismatched.push(Mismatch {
                key: key.clone(),
                expected: format!("{} {shape:?}", parameter.kind.name()),
                found: format!("{} {:?}", entry.dtype, entry.shape),
            });
            continue;
        }
        let fill = Fill {
            source: source.clone(),
            entry: entry.clone(),
            layout: parameter.layout,
        };
        plan.insert(parameter.path.clone(), fill);
    }
    for (key, _) in checkpoint.iter() {
        if !used.contains(key) && !map.ignores(key) {
            report.unexpected.push(Unexpected {
                key: key.to_owned(),
                nearest: None,
            });
        }
    }
    if report.is_empty() {
        return Ok(plan);
    }
    let unused: Vec<String> = checkpoint
        .iter()
        .map(|(key, _)| key)
        .filter(|key| !used.contains(*key))
        .map(str::to_owned)
        .collect();
    let wanted: Vec<String> = report.missing.iter().map(|m| m.key.clone()).collect();
    for missing in &mut report.missing {
        missing.nearest = nearest(&missing.key, &unused);
    }
    for unexpected in &mut report.unexpected {
        unexpected.nearest = nearest(&unexpected.key, &wanted);
    }
    Err(Box::new(report))
}

/// The candidate most like `key`, unless none is like it at all.
fn nearest(key: &str, candidates: &[String]) -> Option<String> {
    const ALIKE: f64 = 0.6;
    /// Beyond this many comparisons the report would take longer than the load.
    const MOST: usize = 2_000;
    candidates
        .iter()
        .take(MOST)
        .map(|candidate| (strsim::sorensen_dice(key, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.clone())
}

/// Replaces parameters by the tensors of a complete plan, one at a time.
struct Filler {
    plan: Plan,
    path: Path,
    error: Option<FormatError>,
}

impl Filler {
    /// Reads the tensor for the current parameter, or notes why it cannot be read.
    fn take(&mut self) -> Option<(TensorData, Layout)> {
        if self.error.is_some() {
            return None;
        }
        let fill = self.plan.remove(&self.path.text())?;
        match fill.entry.read() {
            Ok(data) => {
                let data = match fill.source.rows {
                    Some(block) => rows_of(&data, block),
                    None => data,
                };
                Some((data, fill.layout))
            }
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}

impl ModuleMapper for Filler {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((data, layout)) = self.take() else {
            return param;
        };
        let device: Device = param.lazy_device();
        let tensor = Tensor::from_data(to_f32(data), (&device, DType::F32));
        let tensor = match layout {
            Layout::AsStored => tensor,
            Layout::Transposed => tensor.transpose(),
        };
        Param::initialized(param.id, tensor)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let Some((data, _)) = self.take() else {
            return param;
        };
        let tensor = Tensor::from_data(data, &param.lazy_device());
        Param::initialized(param.id, tensor)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        let Some((data, _)) = self.take() else {
            return param;
        };
        let tensor = Tensor::from_data(data, &param.lazy_device());
        Param::initialized(param.id, tensor)
    }
}
