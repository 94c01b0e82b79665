//! Lays module, key map and checkpoint over each other, and fills the module when all of it fits.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, DType, Device, Int, Shape, Tensor, TensorData};

use crate::change::{block_of, to_f32};
use crate::checkpoint::{Checkpoint, Dtype, Entry, Layer, Layout, Place, Placement};
use crate::data;
use crate::error::{FormatError, LoadError};
use crate::key_map::{Block, KeyMap, Source};
use crate::report::{Ambiguous, KeyReport, Mismatch, Missing, Unexpected, some};

/// Fills every parameter of `module` from `checkpoint`, by the names of `map`.
///
/// Names, shapes and types are proven before the first tensor is read. Floats of any width become `f32`;
/// `f32` on a CPU device stays in the mapped file, unless a parameter is only some of a tensor's rows, or a
/// convolution's weight is not laid out as PyTorch's. The weight of a linear layer may lie as `[out, in]`,
/// which is transposed by its strides without a copy, or as `[in, out]`, which is copied; the entry's
/// [`Layout`] says which.
/// `name` says in a report what was to be loaded.
///
/// The last segment of a key may be another framework's name for the same thing: a weight's `kernel`, a
/// norm's `gamma` or `scale` and `beta`, a table's `embedding` or `embeddings`, the `mean` or `moving_mean`
/// and the `var` or `moving_variance` of a batch norm.
///
/// An exported model may have lost names. Parameters that are missing are then found among the tensors whose
/// names the exporter made up: those of one shape and use, if they are as many as the missing ones, in the
/// order in which the graph needs them, which is that of the module's fields. If they are not as many, or two of
/// them could change places, the report lists them as candidates.
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
    load_keeping(module, name, map, checkpoint, |_, _| false)
}

/// [`load`], except that some weights stay in f16 or bf16 where they are stored so: on a CPU device in the mapped
/// file.
///
/// `keeps` is asked with the device of a weight, the type of its layer, and the type whose field that is, such as
/// `Linear` and `Attention`.
///
/// # Errors
/// As of [`load`].
pub fn load_keeping<M: Module>(
    module: M,
    name: &str,
    map: &KeyMap,
    checkpoint: &Checkpoint,
    keeps: impl Fn(&Device, [&str; 2]) -> bool,
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
        keeps,
        path: Path::default(),
        waiting: 0,
        device: None,
        checkpoint,
        error: None,
    };
    let module = module.map(&mut filler);
    filler.settle();
    match filler.error {
        Some(error) => Err(error),
        None => Ok(module),
    }
}

/// What a parameter is the weight of, as far as it decides how its axes lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Burn's `[in, out]`.
    Linear,
    /// `[out, in, spatial…]`, as PyTorch's.
    Convolution,
    /// Something else, as PyTorch has it.
    Other,
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
    /// The name that PyTorch gives the last segment, and those that others do.
    leaves: Vec<String>,
    shape: Vec<usize>,
    role: Role,
    /// Whether it is a norm's.
    norm: bool,
    /// Of a convolution's bias, the shape of its weight.
    beside: Option<Vec<usize>>,
    kind: Kind,
}

impl Parameter {
    /// The shape as a checkpoint of that layout stores it, with the other blocks where it is one of several.
    fn stored_shape(&self, layout: Layout, block: Option<Block>) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.role == Role::Linear {
            shape.reverse();
        }
        if let (Some(block), Some(first)) = (block, shape.first_mut()) {
            *first = first.saturating_mul(block.count);
        }
        let mut stored = shape.clone();
        for (size, axis) in shape.into_iter().zip(layout.axes(stored.len())) {
            stored[axis] = size;
        }
        stored
    }

    /// The checkpoint's entry for it, and where that is.
    fn find<'a>(&self, map: &KeyMap, checkpoint: &'a Checkpoint) -> Option<(Source, &'a Entry)> {
        let mut sources = self.sources(map).into_iter();
        sources.find_map(|source| checkpoint.get(&source.key).map(|entry| (source, entry)))
    }

    /// The checkpoint keys that may hold it, best first.
    fn sources(&self, map: &KeyMap) -> Vec<Source> {
        let parent = self.path.rfind('.').map_or("", |dot| &self.path[..=dot]);
        self.leaves
            .iter()
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

    /// The types of the parameter's layer and of what that is a field of.
    fn around(&self) -> [&str; 2] {
        let mut kinds = self.containers.iter().rev();
        std::array::from_fn(|_| {
            let kind = kinds.next().and_then(|kind| kind.strip_prefix("Struct:"));
            kind.unwrap_or_default()
        })
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
        let role = match (container, leaf) {
            ("Struct:Linear", "weight") => Role::Linear,
            ("Struct:Conv1d" | "Struct:Conv2d" | "Struct:Conv3d", "weight") => Role::Convolution,
            _ => Role::Other,
        };
        // Burn's norms say gamma and beta, as TensorFlow did and PyTorch's first BERT port after it.
        let leaves: &[&str] = match leaf {
            "weight" if role != Role::Other => &["weight", "kernel"],
            "weight" if container == "Struct:Embedding" => &["weight", "embedding", "embeddings"],
            "weight" | "gamma" => &["weight", "gamma", "scale"],
            "beta" => &["bias", "beta"],
            "running_mean" => &["running_mean", "mean", "moving_mean"],
            "running_var" => &["running_var", "var", "moving_variance"],
            other => &[other],
        };
        let convolution = container.starts_with("Struct:Conv") && leaf == "bias";
        // The weight of a layer comes before its bias.
        let weight = self.found.last().filter(|_| convolution);
        let beside = weight.map(|weight| weight.shape.clone());
        self.found.push(Parameter {
            path: self.path.text(),
            leaves: leaves.iter().map(|leaf| (*leaf).to_owned()).collect(),
            shape: shape.to_vec(),
            role,
            norm: container.ends_with("Norm"),
            beside,
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
    role: Role,
}

fn placements(parameters: &[Parameter], plan: &Plan) -> Vec<Placement> {
    let placed = parameters.iter().filter_map(|parameter| {
        let fill = plan.get(&parameter.path)?;
        let parent = parameter
            .path
            .rfind('.')
            .map_or("", |dot| &parameter.path[..=dot]);
        let leaf = parameter.leaves.first()?;
        Some(Placement {
            parameter: format!("{parent}{leaf}"),
            source: fill.source.clone(),
            layout: fill.entry.layout,
            layer: match parameter.role {
                _ if parameter.norm => Layer::Norm,
                Role::Linear => Layer::Linear,
                Role::Convolution => Layer::Convolution,
                Role::Other => Layer::Other,
            },
        })
    });
    placed.collect()
}

fn plan(
    parameters: &[Parameter],
    name: &str,
    map: &KeyMap,
    checkpoint: &Checkpoint,
) -> Result<Plan, LoadError> {
    let mut plan = Plan::new();
    let mut used = std::collections::HashSet::new();
    let mut report = KeyReport {
        file: checkpoint.holder(checkpoint.iter().map(|(_, entry)| entry)),
        module: name.to_owned(),
        ..KeyReport::default()
    };
    let channels_last = are_channels_last(parameters, map, checkpoint);
    let mut lost: Vec<&Parameter> = Vec::new();
    let mut wrong: Vec<&Entry> = Vec::new();
    for parameter in parameters {
        let Some((source, entry)) = parameter.find(map, checkpoint) else {
            lost.push(parameter);
            let first = parameter.sources(map).into_iter().next();
            report.missing.push(Missing {
                key: prefixed(
                    checkpoint,
                    &first.map(|source| source.key).unwrap_or_default(),
                ),
                parameter: parameter.path.clone(),
                nearest: None,
            });
            continue;
        };
        let (key, block) = (&source.key, source.rows);
        let seen = !used.insert(key.clone());
        let mut entry = entry.clone();
        if channels_last && parameter.role == Role::Convolution {
            entry.layout = Layout::ChannelsLast;
        }
        let shape = parameter.stored_shape(entry.layout, block);
        if entry.shape != shape || !parameter.kind.accepts(&entry.dtype) {
            // The other blocks of the same tensor have said so already.
            if seen && block.is_some() {
                continue;
            }
            wrong.extend(checkpoint.get(key));
            report.mismatched.push(Mismatch {
                key: entry.own_name().unwrap_or(key).to_owned(),
                expected: format!("{} {shape:?}", parameter.kind.name()),
                found: format!("{} {:?}", entry.dtype, entry.shape),
            });
            continue;
        }
        let fill = Fill {
            source: source.clone(),
            entry,
            role: parameter.role,
        };
        plan.insert(parameter.path.clone(), fill);
    }
    let (ordered, ambiguous) = by_order(&lost, checkpoint)?;
    report.ambiguous = ambiguous;
    if !ordered.is_empty() {
        tracing::info!(
            "{}: {} of {} parameters of {name} have lost their names and are taken by their order",
            report.file.display(),
            ordered.len(),
            parameters.len()
        );
    }
    for (parameter, (key, entry)) in ordered {
        report
            .missing
            .retain(|missing| missing.parameter != parameter.path);
        let source = Source {
            key: key.to_owned(),
            rows: None,
        };
        let fill = Fill {
            source,
            entry: entry.clone(),
            role: parameter.role,
        };
        plan.insert(parameter.path.clone(), fill);
    }
    let own = |(key, entry): (&str, &Entry)| entry.own_name().unwrap_or(key).to_owned();
    let mut outside: Vec<(String, &Entry)> = Vec::new();
    for (key, entry) in checkpoint.iter() {
        if used.contains(key) || entry.generated || map.ignores(key) {
            continue;
        }
        let key = own((key, entry));
        if entry.outside {
            outside.push((key, entry));
            continue;
        }
        wrong.push(entry);
        report.unexpected.push(Unexpected { key, nearest: None });
    }
    if report.is_empty() {
        if checkpoint.trace().is_none() && !outside.is_empty() {
            let file = checkpoint.holder(outside.iter().map(|(_, entry)| *entry));
            let names: Vec<String> = outside.into_iter().map(|(name, _)| name).collect();
            tracing::warn!(
                "{}: {} tensors that are not the model's stay unread: {}",
                file.display(),
                names.len(),
                some(&names)
            );
        }
        return Ok(plan);
    }
    // What is missing is in no file.
    if report.missing.is_empty() {
        report.file = checkpoint.holder(wrong);
    }
    let unused: Vec<String> = checkpoint
        .iter()
        .filter(|(key, _)| !used.contains(*key))
        .map(own)
        .collect();
    let wanted: Vec<String> = report.missing.iter().map(|m| m.key.clone()).collect();
    for missing in &mut report.missing {
        missing.nearest = nearest(&missing.key, &unused);
    }
    for unexpected in &mut report.unexpected {
        unexpected.nearest = nearest(&unexpected.key, &wanted);
    }
    Err(LoadError::Keys(Box::new(report)))
}

/// The name of a tensor in the file, where names are looked for under a prefix.
fn prefixed(checkpoint: &Checkpoint, key: &str) -> String {
    format!("{}{key}", checkpoint.prefix().unwrap_or_default())
}

/// Whether the convolutions' weights in PyTorch's names lie as MLX's, whose files do not always say whose they are: all
/// shapes allow it, and one allows nothing else. A filter may have as many channels as rows and columns.
fn are_channels_last(parameters: &[Parameter], map: &KeyMap, checkpoint: &Checkpoint) -> bool {
    let mut shown = false;
    for parameter in parameters {
        if parameter.role != Role::Convolution {
            continue;
        }
        let Some((source, entry)) = parameter.find(map, checkpoint) else {
            continue;
        };
        let fits = |layout| entry.shape == parameter.stored_shape(layout, source.rows);
        if !fits(Layout::ChannelsLast) {
            return false;
        }
        shown |= !fits(entry.layout);
    }
    shown
}

/// What has to agree before the order decides: PyTorch's shape, and of vectors what they are, whether they
/// are a norm's, which some models run before and some after what they hold first, and the weight beside them.
type Signature = (Vec<usize>, Option<&'static str>, bool, Option<Vec<usize>>);

/// A tensor under its key.
type Named<'a> = (&'a str, &'a Entry);

/// The tensors without names of their own for parameters that no name was found for, and where that is not clear.
#[allow(clippy::type_complexity)]
fn by_order<'a>(
    lost: &[&'a Parameter],
    checkpoint: &'a Checkpoint,
) -> Result<(Vec<(&'a Parameter, Named<'a>)>, Vec<Ambiguous>), FormatError> {
    const VECTORS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];
    let signature =
        |shape: Vec<usize>, leaf: Option<&str>, norm, beside: &Option<_>| -> Signature {
            let known = |leaf: &str| VECTORS.into_iter().find(|known| *known == leaf);
            match shape.len() {
                1 => (shape, leaf.and_then(known), norm, beside.clone()),
                _ => (shape, None, false, None),
            }
        };
    let mut nameless: Vec<(&Place, Named)> = checkpoint
        .iter()
        .filter(|(_, entry)| entry.generated)
        .filter_map(|(key, entry)| Some((entry.place.as_ref()?, (key, entry))))
        .collect();
    nameless.sort_by_key(|(place, _)| (place.graph, place.joint));
    let mut groups: HashMap<Signature, Vec<Named>> = HashMap::new();
    for (place, named) in nameless {
        let signature = signature(
            named.1.out_in_shape(),
            place.leaf,
            place.norm,
            &place.beside,
        );
        groups.entry(signature).or_default().push(named);
    }
    let mut wanted: HashMap<Signature, Vec<&Parameter>> = HashMap::new();
    for &parameter in lost {
        let leaf = parameter.leaves.first().map(|leaf| &leaf[..]);
        let shape = parameter.stored_shape(Layout::OutIn, None);
        let signature = signature(shape, leaf, parameter.norm, &parameter.beside);
        wanted.entry(signature).or_default().push(parameter);
    }
    let (mut found, mut ambiguous) = (Vec::new(), Vec::new());
    for (signature, parameters) in wanted {
        let Some(entries) = groups.get(&signature) else {
            continue;
        };
        let mut entries = entries.clone();
        if entries.len() > parameters.len() {
            // Two layers may share a tensor, of which an exporter makes two.
            let mut distinct: Vec<(TensorData, Named)> = Vec::new();
            for named in entries {
                let data = named.1.read_out_in()?;
                if !distinct
                    .iter()
                    .any(|(other, _)| other.as_bytes() == data.as_bytes())
                {
                    distinct.push((data, named));
                }
            }
            entries = distinct.into_iter().map(|(_, named)| named).collect();
        }
        let fits = |named: &Named, parameter: &&Parameter| parameter.kind.accepts(&named.1.dtype);
        let is_before = |pair: &[Named]| match (&pair[0].1.place, &pair[1].1.place) {
            (Some(first), Some(second)) => first.is_before(second),
            _ => false,
        };
        let clear = entries.len() == parameters.len()
            && entries.windows(2).all(is_before)
            && entries
                .iter()
                .zip(&parameters)
                .all(|(named, parameter)| fits(named, parameter));
        if clear {
            found.extend(parameters.into_iter().zip(entries));
        } else {
            let parameters = parameters.iter().map(|parameter| parameter.path.clone());
            ambiguous.push(Ambiguous {
                parameters: parameters.collect(),
                candidates: entries.iter().map(|(key, _)| (*key).to_owned()).collect(),
            });
        }
    }
    ambiguous.sort_by(|a, b| a.parameters.cmp(&b.parameters));
    Ok((found, ambiguous))
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
struct Filler<'a, F> {
    plan: Plan,
    keeps: F,
    path: Path,
    /// The bytes that a device may still hold on the host, on their way to its memory.
    waiting: usize,
    device: Option<Device>,
    checkpoint: &'a Checkpoint,
    error: Option<LoadError>,
}

/// How many of them there may be.
const WAITING: usize = 1 << 20;

impl<F: Fn(&Device, [&str; 2]) -> bool> Filler<'_, F> {
    /// Reads the tensor for the current parameter, or notes why it cannot be read. What it says beside the
    /// data is whether a linear layer's weight must be transposed.
    fn take(&mut self) -> Option<(TensorData, bool)> {
        if self.error.is_some() {
            return None;
        }
        let fill = self.plan.remove(&self.path.text())?;
        let data = match fill.entry.read() {
            Ok(data) => data,
            Err(error) => {
                self.error = Some(error.into());
                return None;
            }
        };
        let axes = fill.entry.layout.axes(data.shape().len());
        let data = match (fill.source.rows, axes.first()) {
            (Some(block), Some(&axis)) => block_of(&data, axis, block),
            _ => data,
        };
        // Products walk a transposed weight the fastest; the same layout also gives the same rounding.
        let transposed = fill.role == Role::Linear;
        Some((data::permuted(data, &axes), transposed))
    }

    /// Notes that a tensor is on its way, and waits for it where much is.
    ///
    /// That there was no room for it is only heard of by reading from it.
    fn sent<const D: usize>(&mut self, tensor: &Tensor<D>, bytes: usize) {
        self.waiting += bytes;
        self.device.get_or_insert_with(|| tensor.device());
        if self.waiting < WAITING || bytes == 0 {
            return;
        }
        self.waiting = 0;
        let first = tensor
            .clone()
            .flatten::<1>(0, D - 1)
            .slice(burn::tensor::s![0..1]);
        if let Err(error) = first.try_into_data() {
            let reason = format!("while it took {bytes} bytes of a weight: {error}");
            self.error = Some(LoadError::Device(reason));
        }
        self.let_go();
    }

    /// Lets go of what was read of mapped files, if the device has taken it to memory of its own.
    fn let_go(&self) {
        let pools = self.device.as_ref().and_then(Device::memory_pool_usage);
        if pools.is_some() {
            self.checkpoint.release();
        }
    }

    /// Waits until the device has all that it was given.
    fn settle(&mut self) {
        if let Some(device) = &self.device
            && self.error.is_none()
            && let Err(error) = device.sync()
        {
            let reason = format!("while it took the weights: {error}");
            self.error = Some(LoadError::Device(reason));
        }
        self.let_go();
    }
}

impl<F: Fn(&Device, [&str; 2]) -> bool> ModuleMapper for Filler<'_, F> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((data, transposed)) = self.take() else {
            return param;
        };
        let device: Device = param.lazy_device();
        let is_half = matches!(data.dtype(), DType::F16 | DType::BF16);
        let is_weight = self
            .path
            .segments
            .last()
            .is_some_and(|name| name == "weight");
        let kept = is_weight && is_half && (self.keeps)(&device, self.path.around());
        let data = if kept { data } else { to_f32(data) };
        let bytes = data.as_bytes().len();
        let dtype = data.dtype();
        let tensor = Tensor::from_data(data, (&device, dtype));
        self.sent(&tensor, bytes);
        let tensor = if transposed {
            tensor.transpose()
        } else {
            tensor
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::module::Module;
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use burn::tensor::{DType, Device, TensorData};

    use crate::{Checkpoint, Dtype, Entry, Format, KeyMap, Layout, Row};

    #[derive(Module, Debug)]
    struct Net {
        convolution: Conv2d,
        query: Linear,
        key: Linear,
        table: Embedding,
        norm: LayerNorm,
    }

    const ROWS: &[Row] = &[("fused[0/2]", "query"), ("fused[1/2]", "key")];

    /// Loads a network whose tensors count from 0 in PyTorch's order, stored by `layout` and leaf names.
    fn loaded(layout: Layout, leaves: [&str; 4]) -> Net {
        let device = Device::default();
        let net = Net {
            convolution: Conv2dConfig::new([3, 2], [5, 4]).init(&device),
            query: LinearConfig::new(3, 2).init(&device),
            key: LinearConfig::new(3, 2).init(&device),
            table: EmbeddingConfig::new(7, 2).init(&device),
            norm: LayerNormConfig::new(2).init(&device),
        };
        let [weight, table, gamma, beta] = leaves;
        let tensors = [
            (format!("convolution.{weight}"), vec![2, 3, 5, 4]),
            ("convolution.bias".to_owned(), vec![2]),
            (format!("fused.{weight}"), vec![4, 3]),
            ("fused.bias".to_owned(), vec![4]),
            (format!("table.{table}"), vec![7, 2]),
            (format!("norm.{gamma}"), vec![2]),
            (format!("norm.{beta}"), vec![2]),
        ];
        let entries = tensors.map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|value| value as f32).collect();
            let data = TensorData::new(values, shape.clone());
            let is_weight = name.ends_with(weight) && !name.starts_with("table");
            let axes = layout.axes(shape.len());
            let data = if is_weight {
                // From PyTorch's order to the stored one is the way back.
                let mut back = vec![0; axes.len()];
                for (place, &axis) in axes.iter().enumerate() {
                    back[axis] = place;
                }
                crate::data::permuted(data, &back)
            } else {
                data
            };
            let shape = data.shape().to_vec();
            let entry = Entry::new(Dtype::F32, shape, count * 4, move || Ok(data.clone()));
            let layout = if is_weight { layout } else { Layout::default() };
            (name, entry.with_layout(layout))
        });
        let entries = entries.into_iter().collect();
        let checkpoint = Checkpoint::new(Format::Npz, Vec::new(), BTreeMap::new(), entries);
        super::load(net, "Net", &KeyMap::new(ROWS, &[""]), &checkpoint).unwrap()
    }

    #[test]
    fn every_layout_and_leaf_name_loads_the_same() {
        let counted = |from: u8, to: u8| (from..to).map(f32::from).collect::<Vec<_>>();
        for (layout, leaves) in [
            (Layout::OutIn, ["weight", "weight", "weight", "bias"]),
            (Layout::InOut, ["kernel", "embedding", "scale", "bias"]),
            (Layout::InOut, ["kernel", "embeddings", "gamma", "beta"]),
            (Layout::ChannelsLast, ["weight", "weight", "weight", "bias"]),
        ] {
            let net = loaded(layout, leaves);
            let convolution = net.convolution.weight.val().into_data();
            assert_eq!(convolution.shape()[..], [2, 3, 5, 4]);
            assert_eq!(convolution.try_to_vec::<f32>().unwrap(), counted(0, 120));
            let rows = |linear: &Linear| linear.weight.val().transpose().into_data();
            assert_eq!(rows(&net.query).try_to_vec::<f32>().unwrap(), counted(0, 6));
            assert_eq!(rows(&net.key).try_to_vec::<f32>().unwrap(), counted(6, 12));
            let bias = net.key.bias.unwrap().val().into_data();
            assert_eq!(bias.try_to_vec::<f32>().unwrap(), counted(2, 4));
            let table = net.table.weight.val().into_data();
            assert_eq!(table.try_to_vec::<f32>().unwrap(), counted(0, 14));
        }
    }

    #[derive(Module, Debug)]
    struct Block {
        kept: Linear,
        table: Embedding,
    }

    #[derive(Module, Debug)]
    struct Stack {
        block: Block,
        head: Linear,
    }

    #[test]
    fn halves_are_kept_where_they_may_be() {
        let device = Device::default();
        let names = [
            "block.kept.weight",
            "block.kept.bias",
            "block.table.weight",
            "head.weight",
            "head.bias",
        ];
        for stored in [Dtype::F16, Dtype::BF16, Dtype::F32] {
            let kind = stored.to_burn().unwrap();
            let stack = Stack {
                block: Block {
                    kept: LinearConfig::new(3, 2).init(&device),
                    table: EmbeddingConfig::new(2, 3).init(&device),
                },
                head: LinearConfig::new(3, 2).init(&device),
            };
            let entries = names.map(|name| {
                let shape = if name.ends_with("bias") {
                    vec![2]
                } else {
                    vec![2, 3]
                };
                let count: usize = shape.iter().product();
                let values: Vec<f32> = (0..count).map(|value| value as f32).collect();
                let data = TensorData::new(values, shape.clone()).convert_dtype(kind);
                let entry = Entry::new(stored.clone(), shape, count * 4, move || Ok(data.clone()));
                (name.to_owned(), entry)
            });
            let entries = entries.into_iter().collect();
            let checkpoint = Checkpoint::new(Format::Npz, Vec::new(), BTreeMap::new(), entries);
            let map = KeyMap::new(&[], &[""]);
            let keeps = |_: &Device, [_, layer]: [&str; 2]| layer == "Block";
            let stack = super::load_keeping(stack, "Stack", &map, &checkpoint, keeps).unwrap();
            assert_eq!(stack.block.kept.weight.val().dtype(), kind);
            assert_eq!(stack.block.table.weight.val().dtype(), kind);
            assert_eq!(stack.block.kept.bias.unwrap().val().dtype(), DType::F32);
            assert_eq!(stack.head.weight.val().dtype(), DType::F32);
            let kept = stack.block.kept.weight.val().transpose();
            let kept = kept.into_data().convert::<f32>();
            assert_eq!(
                kept.try_to_vec::<f32>().unwrap(),
                [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
            );
        }
    }
}
