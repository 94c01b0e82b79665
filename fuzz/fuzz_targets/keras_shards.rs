#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    salamander_fuzz::read(
        "tiny.weights.json",
        &[
            "hdf5/keras3_sharded/tiny_00000.weights.h5",
            "hdf5/keras3_sharded/tiny_00001.weights.h5",
        ],
        bytes,
    );
});
