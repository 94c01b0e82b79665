"""Load with transformers what Salamander has converted from other libraries' names, and compare what it computes.

Run as `python tools/check_renamed.py FOLDER`; the test `transformers_loads_what_is_renamed` of `tests/convert.rs` fills
the folder with model directories and calls this. `golden` in each has the inputs and outputs of the original. Needs torch
and transformers.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file


def main() -> None:
    torch.set_num_threads(1)
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        name = json.loads((folder / "config.json").read_text())["architectures"][0]
        model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
        assert not any(info[keys] for keys in ("missing_keys", "unexpected_keys", "mismatched_keys")), (folder.name, info)
        golden = load_file(folder / "golden")
        inputs = {key.removeprefix("input."): value for key, value in golden.items() if key.startswith("input.")}
        with torch.no_grad():
            found = model.eval()(**inputs)
        worst = 0.0
        for key, expected in golden.items():
            if key.startswith("output.") and (value := found.get(key.removeprefix("output."))) is not None:
                worst = max(worst, (value - expected).abs().max().item())
        assert worst < 1e-4, (folder.name, worst)
        print(f"{folder.name}: {name}, largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
