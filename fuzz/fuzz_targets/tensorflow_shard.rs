#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    salamander_fuzz::read(
        "written.data-00000-of-00001",
        &["tensorflow/written.index"],
        bytes,
    );
});
