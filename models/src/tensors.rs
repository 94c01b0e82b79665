//! Named tensors of any rank, at the borders of a model.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use burn::backend::ExecutionError;
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use crate::InputError;

/// A model's inputs on the host, under the names of the reference's forward arguments.
///
/// They stay on the host until a model has checked them, since an index beyond its table is an error
/// here and undefined on a GPU.
#[derive(Debug, Clone, Default)]
pub struct Inputs(BTreeMap<String, TensorData>);

impl Inputs {
    /// No inputs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces one input.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, data: TensorData) -> Self {
        self.0.insert(name.into(), data);
        self
    }

    /// Removes the input `name` if it is there, as integers of rank `D` within `allowed`.
    ///
    /// # Errors
    /// It is there, but not integers, not of that rank, or has an element outside `allowed`.
    pub fn ints<const D: usize>(
        &mut self,
        name: &str,
        allowed: Range<i64>,
    ) -> Result<Option<Ints<D>>, InputError> {
        let Some(data) = self.0.remove(name) else {
            return Ok(None);
        };
        let rank = data.rank();
        let shape: [usize; D] =
            data.shape().to_vec().try_into().map_err(|_| {
                InputError::new(name, format!("has {rank} dimensions, {D} are needed"))
            })?;
        let dtype = data.dtype();
        if !(dtype.is_int() || dtype.is_uint() || dtype.is_bool()) {
            let reason = format!("is of type {dtype:?}, integers are needed");
            return Err(InputError::new(name, reason));
        }
        let values: Vec<i64> = data.iter::<i64>().collect();
        if let Some(value) = values.iter().find(|value| !allowed.contains(value)) {
            let reason = format!(
                "holds {value}, allowed are {} to {}",
                allowed.start,
                allowed.end - 1
            );
            return Err(InputError::new(name, reason));
        }
        Ok(Some(Ints { shape, values }))
    }

    /// Removes the input `name` if it is there, as floats of rank `D` on `device`.
    ///
    /// # Errors
    /// It is there, but not floats or not of that rank.
    pub fn floats<const D: usize>(
        &mut self,
        name: &str,
        device: &Device,
    ) -> Result<Option<Tensor<D>>, InputError> {
        let Some(data) = self.0.remove(name) else {
            return Ok(None);
        };
        if data.rank() != D {
            let reason = format!("has {} dimensions, {D} are needed", data.rank());
            return Err(InputError::new(name, reason));
        }
        if !data.dtype().is_float() {
            let reason = format!("is of type {:?}, floats are needed", data.dtype());
            return Err(InputError::new(name, reason));
        }
        let data = data.convert_dtype(DType::F32);
        Ok(Some(Tensor::from_data(data, device)))
    }

    /// Removes the pictures, `pixel_values`, on `device`.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]`
    ///
    /// # Errors
    /// They are missing, not floats, empty, or do not have that many channels.
    pub fn pixels(&mut self, channels: usize, device: &Device) -> Result<Tensor<4>, InputError> {
        const NAME: &str = "pixel_values";
        if let Some(data) = self.0.get(NAME)
            && let [_, found, ..] = data.shape()[..]
            && (found != channels || data.shape().contains(&0))
        {
            let reason = format!(
                "has the shape {:?}, [batch, {channels}, height, width] is needed",
                data.shape()
            );
            return Err(InputError::new(NAME, reason));
        }
        self.floats(NAME, device)?
            .ok_or_else(|| InputError::new(NAME, "is missing"))
    }

    /// Removes the input `name` if it is there, as numbers of rank `D` on `device`, whatever their type;
    /// `true` is 1.
    ///
    /// # Errors
    /// It is there, but not of that rank.
    pub fn numbers<const D: usize>(
        &mut self,
        name: &str,
        device: &Device,
    ) -> Result<Option<Tensor<D>>, InputError> {
        if let Some(data) = self.0.remove(name) {
            let data = data.convert_dtype(DType::F32);
            self.0.insert(name.to_owned(), data);
        }
        self.floats(name, device)
    }

    /// Ends the taking: whatever is left is an input that the model does not know.
    ///
    /// # Errors
    /// An input is left.
    pub fn finish(self, known: &[&str]) -> Result<(), InputError> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => {
                let reason = format!("is unknown; this model takes {}", known.join(", "));
                Err(InputError::new(name, reason))
            }
        }
    }
}

impl FromIterator<(String, TensorData)> for Inputs {
    fn from_iter<T: IntoIterator<Item = (String, TensorData)>>(items: T) -> Self {
        Self(items.into_iter().collect())
    }
}

/// Checked integers on the host.
#[derive(Debug, Clone)]
pub struct Ints<const D: usize> {
    /// The shape.
    pub shape: [usize; D],
    /// The elements in row-major order.
    pub values: Vec<i64>,
}

impl<const D: usize> Ints<D> {
    /// Puts them on a device, in the device's integer type.
    pub fn to_tensor(&self, device: &Device) -> Tensor<D, Int> {
        Tensor::from_data(TensorData::new(self.values.clone(), self.shape), device)
    }
}

impl Ints<2> {
    /// Of an attention mask, `true` where it is 0; nothing at all where it never is, which is faster.
    pub(crate) fn padding(&self, device: &Device) -> Option<Tensor<2, Bool>> {
        if !self.values.contains(&0) {
            return None;
        }
        let padding: Vec<bool> = self.values.iter().map(|&value| value == 0).collect();
        Some(Tensor::from_data(
            TensorData::new(padding, self.shape),
            device,
        ))
    }
}

/// A model's outputs on its device, under the names of the reference's output fields.
#[derive(Debug, Clone, Default)]
pub struct Outputs(BTreeMap<Cow<'static, str>, Value>);

impl Outputs {
    /// No outputs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one output.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// Removes the output of that name.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Reads everything back to the host.
    ///
    /// # Panics
    /// As [`Value::try_into_data`] fails.
    pub fn into_data(self) -> BTreeMap<String, TensorData> {
        let items = self.0.into_iter();
        items
            .map(|(name, value)| (name.into_owned(), value.into_data()))
            .collect()
    }

    /// Reads everything back to the host.
    ///
    /// # Errors
    /// As [`Value::try_into_data`].
    pub fn try_into_data(self) -> Result<BTreeMap<String, TensorData>, ExecutionError> {
        let items = self.0.into_iter();
        items
            .map(|(name, value)| Ok((name.into_owned(), value.try_into_data()?)))
            .collect()
    }
}

macro_rules! value {
    ($($rank:literal $variant:ident),*) => {
        /// A float tensor of a rank known at run time.
        #[derive(Debug, Clone)]
        #[allow(missing_docs)]
        #[non_exhaustive]
        pub enum Value { $($variant(Tensor<$rank>)),* }

        impl Value {
            /// Reads it back to the host, as `f32`.
            ///
            /// # Panics
            /// As [`Value::try_into_data`] fails.
            pub fn into_data(self) -> TensorData {
                match self { $(Value::$variant(tensor) => tensor.into_data()),* }
                    .convert_dtype(DType::F32)
            }

            /// Reads it back to the host, as `f32`.
            ///
            /// # Errors
            /// The device failed since it was read the last time.
            pub fn try_into_data(self) -> Result<TensorData, ExecutionError> {
                let data = match self { $(Value::$variant(tensor) => tensor.try_into_data()),* };
                Ok(data?.convert_dtype(DType::F32))
            }
        }

        $(
            impl From<Tensor<$rank>> for Value {
                fn from(tensor: Tensor<$rank>) -> Self { Value::$variant(tensor) }
            }

            impl TryFrom<Value> for Tensor<$rank> {
                type Error = Value;
                fn try_from(value: Value) -> Result<Self, Value> {
                    match value { Value::$variant(tensor) => Ok(tensor), other => Err(other) }
                }
            }
        )*
    };
}

value!(1 Rank1, 2 Rank2, 3 Rank3, 4 Rank4);

/// Hidden states under their names: `embeddings`, `layer.0`, …, behind `prefix`.
pub(crate) fn named<T: Into<Value>>(
    prefix: &str,
    states: Vec<T>,
) -> impl Iterator<Item = (String, Value)> {
    let layers = (0..).map(|layer| format!("layer.{layer}"));
    let names = std::iter::once("embeddings".to_owned()).chain(layers);
    names
        .zip(states)
        .map(move |(name, state)| (format!("{prefix}{name}"), state.into()))
}
