#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    salamander_fuzz::read("model.bin", &[], bytes);
});
