#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    salamander_fuzz::read(
        "pytorch_model.bin.index.json",
        &[
            "pytorch/sharded/pytorch_model-00001-of-00002.bin",
            "pytorch/sharded/pytorch_model-00002-of-00002.bin",
        ],
        bytes,
    );
});
