//! The invariants of ARCHITECTURE.md that no compiler checks.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use salamander::models::ARCHITECTURES;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// All Rust files under a folder, with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut folders = vec![root(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = read(&path);
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// The lines of a file that are code, with their numbers; tests at its end do not count.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate();
    let lines = lines.take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[track_caller]
fn none_of(folder: &str, words: &[&str], except: &[&str]) {
    let mut found = String::new();
    for (path, text) in sources(folder) {
        if except.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        for (number, line) in code(&text) {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                writeln!(found, "{}:{}: {word}", path.display(), number + 1).unwrap();
            }
        }
    }
    assert!(found.is_empty(), "{found}");
}

#[test]
fn importers_name_no_architecture() {
    for architecture in ARCHITECTURES {
        // GGML's old files have a header of each model's own.
        none_of("importers/src", &[architecture.name], &["ggml.rs"]);
    }
}

#[test]
fn models_open_no_file_and_no_socket() {
    none_of(
        "models/src",
        &["std::fs", "File::", "std::net", "std::env", "from_file"],
        &[],
    );
}

#[test]
fn unsafe_is_in_the_kernels_and_the_memory_map_alone() {
    for folder in [
        "importers/src",
        "models/src",
        "hub/src",
        "engine/src",
        "cli/src",
        "src",
    ] {
        none_of(
            folder,
            &["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)"],
            &["map.rs"],
        );
    }
}

#[test]
fn libraries_do_not_print() {
    for folder in [
        "importers/src",
        "kernels/src",
        "models/src",
        "hub/src",
        "engine/src",
        "src",
    ] {
        none_of(folder, &["println!", "eprintln!", "print!(", "dbg!("], &[]);
    }
}

#[test]
fn every_unsafe_block_of_the_kernels_says_why() {
    for (path, text) in sources("kernels/src") {
        let lines: Vec<&str> = text.lines().collect();
        // A whole implementation may say it once.
        let waived = text.contains("SAFETY of every block below");
        for (number, line) in lines.iter().enumerate() {
            if !line.contains("unsafe {") || waived {
                continue;
            }
            let before = &lines[number.saturating_sub(5)..number];
            let said = before.iter().any(|line| line.contains("SAFETY"));
            assert!(said, "{}:{}", path.display(), number + 1);
        }
    }
}

#[test]
fn nothing_is_left_open() {
    for folder in [
        "importers/src",
        "kernels/src",
        "models/src",
        "hub/src",
        "engine/src",
        "cli/src",
        "src",
    ] {
        none_of(folder, &["todo!", "unimplemented!", "TODO", "FIXME"], &[]);
    }
}

#[test]
fn every_folder_of_the_zoo_is_an_entry_with_all_its_parts() {
    let golden = read(&root("tests/golden.rs"));
    let mut folders = 0;
    for item in fs::read_dir(root("models/src")).unwrap() {
        let path = item.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !path.is_dir() || ["blocks", "processing"].contains(&&name[..]) {
            continue;
        }
        folders += 1;
        assert!(
            ARCHITECTURES.iter().any(|entry| entry.name == name),
            "{name} is not registered"
        );
        for file in ["mod.rs", "config.rs", "model.rs", "keys.rs"] {
            assert!(
                path.join(file).is_file(),
                "models/src/{name}/{file} is missing"
            );
        }
        let header = read(&path.join("mod.rs"));
        for says in ["Paper:", "Reference:", "Checkpoints:", "Refused:"] {
            assert!(
                header.contains(says),
                "models/src/{name}/mod.rs does not say {says}"
            );
        }
        assert!(
            golden.contains(&format!("check(\"{name}\")")),
            "tests/golden.rs lacks {name}"
        );
        assert!(
            root(&format!("tests/fixtures/{name}")).is_dir(),
            "{name} has no fixtures"
        );
        assert!(
            root(&format!("tools/fixtures/{name}.py")).is_file(),
            "{name} has no generator"
        );
    }
    assert_eq!(folders, ARCHITECTURES.len());
}

#[test]
fn the_readme_has_the_table_of_the_registry() {
    let mut table = String::from("| architecture | classes | tasks |\n|---|---|---|\n");
    for architecture in ARCHITECTURES {
        let classes = architecture
            .classes
            .iter()
            .map(|class| format!("`{}`", class.name));
        let mut tasks: Vec<String> = Vec::new();
        for class in architecture.classes {
            let task = class.task.map(|task| task.to_string());
            tasks.extend(task.filter(|task| !tasks.contains(task)));
        }
        let (name, paper) = (architecture.name, architecture.paper);
        let classes = classes.collect::<Vec<_>>().join(", ");
        writeln!(
            table,
            "| [{name}]({paper}) | {classes} | {} |",
            tasks.join(", ")
        )
        .unwrap();
    }
    let readme = read(&root("README.md"));
    let (_, rest) = readme.split_once("<!-- models -->\n").unwrap();
    let (found, _) = rest.split_once("<!-- /models -->").unwrap();
    assert_eq!(
        found, table,
        "README.md's table of models should be:\n{table}"
    );
}
