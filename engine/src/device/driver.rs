//! Looking for drivers without loading them: a backend panics where its driver is not there.

use std::path::{Path, PathBuf};

/// Whether CUDA's driver library can be found, where the system's loader looks for it.
///
/// # Errors
/// Which library was looked for, and where.
pub(super) fn cuda() -> Result<(), String> {
    let (library, places) = if cfg!(windows) {
        let system = std::env::var_os("SystemRoot").unwrap_or_else(|| "C:\\Windows".into());
        let mut places = vec![Path::new(&system).join("System32")];
        places.extend(directories("PATH"));
        ("nvcuda.dll", places)
    } else {
        let mut places = directories("LD_LIBRARY_PATH");
        places.extend(LOADER_PLACES.iter().map(PathBuf::from));
        ("libcuda.so.1", places)
    };
    if places.iter().any(|place| place.join(library).exists()) || is_cached(library) {
        return Ok(());
    }
    Err(format!(
        "the NVIDIA driver's library {library} is in none of the directories where it would be; install \
         the driver, or name its directory in {}",
        if cfg!(windows) {
            "PATH"
        } else {
            "LD_LIBRARY_PATH"
        }
    ))
}

/// Where loaders look, and where containers, WSL and NixOS put drivers.
const LOADER_PLACES: &[&str] = &[
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
    "/run/opengl-driver/lib",
];

fn directories(variable: &str) -> Vec<PathBuf> {
    let value = std::env::var_os(variable).unwrap_or_default();
    std::env::split_paths(&value).collect()
}

/// Whether glibc's loader has a library of that name in its cache, which lists names as they are.
fn is_cached(library: &str) -> bool {
    let cache = std::fs::read("/etc/ld.so.cache").unwrap_or_default();
    let mut windows = cache.windows(library.len());
    windows.any(|window| window == library.as_bytes())
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn the_cache_tells_libraries_apart() {
        if std::path::Path::new("/etc/ld.so.cache").exists() {
            assert!(super::is_cached("libc.so.6"));
            assert!(!super::is_cached("libsalamander-is-not-there.so.1"));
        }
    }
}
