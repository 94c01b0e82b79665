#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    salamander_fuzz::read(
        "split-00001-of-00002.gguf",
        &["gguf/split-00002-of-00002.gguf"],
        bytes,
    );
});
