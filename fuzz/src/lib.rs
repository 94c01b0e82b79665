//! What the fuzz targets call: bytes into a file of the name that its reader knows, and the file into the reader.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use salamander_importers::{scan::scan as scan_file, verify};
use tempfile::TempDir;

/// Reads everything in a file of that name, beside copies of committed fixtures.
pub fn read(name: &str, beside: &[&str], bytes: &[u8]) {
    let _ = verify(file(name, beside, bytes));
}

/// Scans a file for what it would run.
pub fn scan(bytes: &[u8]) {
    let _ = scan_file(file("model.pt", &[], bytes));
}

/// Reads the configuration of a native model directory.
#[cfg(feature = "native")]
pub fn native(bytes: &[u8]) {
    use salamander::ModelDir;
    use salamander::native::Native;

    let path = file("config.toml", &[], bytes);
    let directory = ModelDir::find(path.parent().unwrap_or(Path::new("."))).expect("a directory");
    if let Ok(Some(native)) = Native::open(&directory) {
        let _ = native.config();
        native.hardware().shortcomings(Some(1 << 30), None);
    }
}

fn file(name: &str, beside: &[&str], bytes: &[u8]) -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = TempDir::new().expect("a folder for the input");
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/formats");
        for file in beside {
            let from = fixtures.join(file);
            let to = folder.path().join(from.file_name().unwrap_or_default());
            fs::copy(from, to).expect("a fixture to lie beside the input");
        }
        folder
    });
    let path = folder.path().join(name);
    // A new file: one that is mapped must not change.
    let _ = fs::remove_file(&path);
    fs::write(&path, bytes).expect("room for the input");
    path
}
