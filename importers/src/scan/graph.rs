//! Graphs: what operations of TensorFlow, ONNX and TensorFlow Lite reach for beyond their tensors.

use super::{Place, keras, leads_out};
use crate::data::clip;
use crate::protobuf::{Slice, Wire};

/// The deepest graph in a graph.
const DEEPEST: usize = 64;

/// Operations that reach beyond the graph.
const OPERATIONS: &[(&str, &str)] = &[
    ("ReadFile", "reads files"),
    ("WriteFile", "writes files"),
    ("MatchingFiles", "lists files"),
    ("WholeFileReader", "reads files"),
    ("WholeFileReaderV2", "reads files"),
    ("TextLineReader", "reads files"),
    ("TextLineReaderV2", "reads files"),
    ("FixedLengthRecordReader", "reads files"),
    ("FixedLengthRecordReaderV2", "reads files"),
    ("TFRecordReader", "reads files"),
    ("TFRecordReaderV2", "reads files"),
    ("LMDBReader", "reads files"),
    ("TextLineDataset", "reads files"),
    ("TFRecordDataset", "reads files"),
    ("TFRecordDatasetV2", "reads files"),
    ("FixedLengthRecordDataset", "reads files"),
    ("FixedLengthRecordDatasetV2", "reads files"),
    ("SqlDataset", "reads databases"),
    ("SaveDataset", "writes files"),
    ("SaveDatasetV2", "writes files"),
    ("LoadDataset", "reads files"),
    ("DatasetToTFRecord", "writes files"),
    ("CreateSummaryFileWriter", "writes files"),
    ("CreateSummaryDbWriter", "writes databases"),
    ("PyFunc", "runs Python"),
    ("PyFuncStateless", "runs Python"),
    ("EagerPyFunc", "runs Python"),
    ("DebugIdentityV2", "writes files"),
    ("DebugIdentityV3", "writes files"),
    ("DebugIdentity", "writes files"),
    ("RpcCall", "reaches over the network"),
    ("RpcClient", "reaches over the network"),
    ("RpcServer", "reaches over the network"),
    ("DataServiceDataset", "reaches over the network"),
    ("DataServiceDatasetV4", "reaches over the network"),
    ("BigQueryReader", "reaches over the network"),
];

/// Operations and files of a graph of TensorFlow; whether it is one.
pub(super) fn tensorflow(place: &mut Place<'_>, name: &str, bytes: &[u8]) -> bool {
    let mut found = false;
    // The operation of a node: field 2, a text with its length.
    for at in memchr::memchr_iter(0x12, bytes) {
        let Some(length) = bytes.get(at + 1).map(|length| usize::from(*length)) else {
            break;
        };
        let Some(text) = bytes.get(at + 2..at + 2 + length) else {
            continue;
        };
        if !text.first().is_some_and(u8::is_ascii_uppercase) {
            continue;
        }
        let listed = OPERATIONS
            .iter()
            .find(|(operation, _)| operation.as_bytes() == text);
        if let Some((operation, does)) = listed {
            place.danger(at, format!("has the operation `{operation}`, which {does}"));
            found = true;
        }
        if text == b"PrintV2" {
            let part = &bytes[at..bytes.len().min(at + 4096)];
            if memchr::memmem::find(part, b"file://").is_some() {
                place.danger(at, "has the operation `PrintV2`, which writes files");
            }
        }
    }
    if is_named(name) {
        keras::in_bytes(place, bytes);
        assets(place, bytes);
        text_graph(place, name, bytes);
    }
    found || (is_named(name) && name != "fingerprint.pb" && name != "keras_metadata.pb")
}

/// Whether a file is named as graphs are.
pub(super) fn is_named(name: &str) -> bool {
    [".pb", ".pbtxt", ".meta"]
        .iter()
        .any(|ends| name.ends_with(ends))
}

/// A graph that is written as a text.
fn text_graph(place: &mut Place<'_>, name: &str, bytes: &[u8]) {
    if !name.ends_with(".pbtxt") {
        return;
    }
    let text = String::from_utf8_lossy(bytes);
    for (operation, does) in OPERATIONS {
        if let Some(at) = text.find(&format!("op: \"{operation}\"")) {
            place.danger(at, format!("has the operation `{operation}`, which {does}"));
        }
    }
}

/// The files that a SavedModel lists as its assets.
fn assets(place: &mut Place<'_>, bytes: &[u8]) {
    for (at, graph) in children(Slice::whole(bytes), 2) {
        for (_, asset) in children(graph, 6) {
            let file = asset.fields().flatten().find_map(|field| match field {
                (2, Wire::Bytes(text)) => text.text().ok(),
                _ => None,
            });
            if let Some(file) = file
                && let Some(where_to) = leads_out(file)
            {
                let what = format!("has the asset `{}`, {where_to}", clip(file));
                place.danger(at, what);
            }
        }
    }
}

/// The messages in the fields of that number.
fn children(message: Slice<'_>, number: u32) -> impl Iterator<Item = (usize, Slice<'_>)> {
    message
        .fields()
        .flatten()
        .filter_map(move |field| match field {
            (found, Wire::Bytes(inner)) if found == number => Some((inner.at, inner)),
            _ => None,
        })
}

/// External data and operators of an ONNX model.
pub(super) fn onnx(place: &mut Place<'_>, bytes: &[u8]) {
    let model = Slice::whole(bytes);
    for (at, import) in children(model, 8) {
        let domain = children(import, 1).find_map(|(_, text)| text.text().ok());
        let domain = domain.unwrap_or_default();
        let usual = [
            "",
            "ai.onnx",
            "ai.onnx.ml",
            "ai.onnx.training",
            "ai.onnx.preview.training",
            "com.microsoft",
            "com.ms.internal.nhwc",
            "org.pytorch.aten",
            "pkg.onnxscript.torch_lib",
            "local",
        ];
        let usual = usual.contains(&domain)
            || domain.starts_with("com.microsoft.")
            || domain.starts_with("pkg.");
        if !usual {
            let what = format!(
                "needs operators of `{}`, which a library of one's own has",
                clip(domain)
            );
            place.notice(at, what);
        }
    }
    let mut open: Vec<(usize, Slice<'_>)> =
        children(model, 7).map(|(_, graph)| (0, graph)).collect();
    // A function has nodes where a graph has its first field.
    let functions = children(model, 25).flat_map(|(_, function)| children(function, 7));
    let mut nodes: Vec<(usize, Slice<'_>)> = functions.map(|(_, node)| (0, node)).collect();
    loop {
        if let Some((depth, graph)) = open.pop() {
            nodes.extend(children(graph, 1).map(|(_, node)| (depth, node)));
            for (_, tensor) in children(graph, 5) {
                self::tensor(place, tensor);
            }
            for (_, sparse) in children(graph, 15) {
                sparse_tensor(place, sparse);
            }
        } else if let Some((depth, node)) = nodes.pop() {
            for (_, attribute) in children(node, 5) {
                for field in [5, 10] {
                    for (_, tensor) in children(attribute, field) {
                        self::tensor(place, tensor);
                    }
                }
                for field in [22, 23] {
                    for (_, sparse) in children(attribute, field) {
                        sparse_tensor(place, sparse);
                    }
                }
                for field in [6, 11] {
                    for (at, inner) in children(attribute, field) {
                        if depth < DEEPEST {
                            open.push((depth + 1, inner));
                        } else {
                            place.danger(at, "has graphs in graphs without end");
                        }
                    }
                }
            }
        } else {
            return;
        }
    }
}

fn sparse_tensor(place: &mut Place<'_>, sparse: Slice<'_>) {
    for field in [1, 2] {
        for (_, tensor) in children(sparse, field) {
            self::tensor(place, tensor);
        }
    }
}

fn tensor(place: &mut Place<'_>, tensor: Slice<'_>) {
    for (at, entry) in children(tensor, 13) {
        let of = |number| children(entry, number).find_map(|(_, text)| text.text().ok());
        if of(1) != Some("location") {
            continue;
        }
        let file = of(2).unwrap_or_default();
        if let Some(where_to) = leads_out(file) {
            let what = format!("keeps data in `{}`, {where_to}", clip(file));
            place.danger(at, what);
        }
    }
}

/// Operations of TensorFlow in a model of TensorFlow Lite.
pub(super) fn tflite(place: &mut Place<'_>, bytes: &[u8]) {
    for at in memchr::memmem::find_iter(bytes, b"Flex") {
        let length = at.checked_sub(4).and_then(|begin| bytes.get(begin..at));
        let length = length.and_then(|length| length.first_chunk());
        let length = length.map_or(0, |length| u32::from_le_bytes(*length) as usize);
        if !(5..128).contains(&length) {
            continue;
        }
        let Some(name) = bytes
            .get(at + 4..at + length)
            .and_then(|name| str::from_utf8(name).ok())
        else {
            continue;
        };
        if !name.chars().all(char::is_alphanumeric) {
            continue;
        }
        let listed = OPERATIONS.iter().find(|(operation, _)| *operation == name);
        match listed {
            Some((_, does)) => {
                let what = format!("has the operation `{name}`, which {does}");
                place.danger(at, what);
            }
            None => place.notice(at, format!("needs TensorFlow's operation `{name}`")),
        }
    }
}
