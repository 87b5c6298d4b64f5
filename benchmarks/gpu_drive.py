"""Use a GPU that is at hand for minutes: `python benchmarks/gpu_drive.py RUN FOLDER --seconds N`.

Runs `benchmarks/gpu.py check` and `speed`, `keylm pretrain` and `keylm sft`, packs the weights, and writes `log.md`, a
table of what was done. What fails or takes too long is noted, and the rest goes on. Training is as many tokens as the
measured speed allows, so that the learning rate decays within the time. It needs

    RUN                             a run whose data are prepared: `keylm prepare RUN`
    FOLDER/reference.safetensors    written on any machine: `python benchmarks/gpu.py reference FILE`

The packed weights are bfloat16, in parts for a slow line, which are joined again by

    python benchmarks/gpu_drive.py --unpack FOLDER WEIGHTS.safetensors
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import zstandard
from safetensors.torch import load_file, save_file

from keylm.run import Run, open_run

BENCHMARK = [sys.executable, str(Path(__file__).with_name("gpu.py"))]
KEYLM = [sys.executable, "-m", "keylm"]
MARGIN = 0.8
"""Share of the measured speed that training is planned with: compiling, validation and checkpoints take the rest."""
PACK_SECONDS = 60
"""Time kept for packing."""
PART_BYTES = 16_000_000
"""Size of a part of packed weights."""


def main() -> None:
    """Drive, or join the parts that an earlier drive has packed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="RUN", help="the run; with --unpack the folder of parts")
    parser.add_argument("target", type=Path, metavar="FOLDER", help="for results; with --unpack the file of weights")
    parser.add_argument("--seconds", type=float, default=1500, help="time for everything")
    parser.add_argument("--micro-batches", nargs="+", default=["16384", "32768", "65536", "131072"], help="to measure")
    parser.add_argument("--unpack", action="store_true", help="join packed weights")
    options = parser.parse_args()
    if options.unpack:
        unpack(options.source, options.target)
        return
    if options.seconds < 3 * PACK_SECONDS:
        parser.error(f"--seconds must be at least {3 * PACK_SECONDS}, or nothing is left to train in")
    drive(open_run(options.source), options.target, options.seconds, options.micro_batches)


def drive(run: Run, folder: Path, seconds: float, micro_batches: list[str]) -> None:
    """Check, measure, train and pack, in `seconds`."""
    log = Log(folder / "log.md", time.monotonic() + seconds)
    speeds = folder / "speed.json"
    log.run("check", [*BENCHMARK, "check", str(folder / "reference.safetensors")], limit=0.15 * log.seconds_left)
    command = [*BENCHMARK, "speed", str(run.folder / "recipe.yaml"), "--micro-batches", *micro_batches]
    command += ["--json", str(speeds), "--profile", str(folder / "profile.txt")]
    log.run("speed", command, limit=0.2 * log.seconds_left)

    # Without a measured speed, the recipe's own tokens have to do.
    settings: dict[str, list[str]] = {"pretrain": [], "sft": []}
    if speeds.exists():
        rates = json.loads(speeds.read_text(encoding="utf-8"))["keylm-muon"]
        micro_batch_tokens, rate = max(rates.items(), key=lambda item: item[1])
        tokens = MARGIN * rate * (log.seconds_left - PACK_SECONDS)
        # A tenth of the time for SFT, whose batches are smaller: at half the speed, a twentieth of the tokens.
        settings["pretrain"] = [f"train.tokens={tokens * 0.9:.0f}", f"train.micro_batch_tokens={micro_batch_tokens}"]
        settings["sft"] = [f"sft.tokens={tokens * 0.05:.0f}"]
        log.note("plan", f"{tokens * 0.9:,.0f} tokens, then {tokens * 0.05:,.0f} of SFT", 0)
    for stage, own in settings.items():
        command = [*KEYLM, stage, str(run.folder), *(word for setting in own for word in ("--set", setting))]
        log.run(stage, command, limit=log.seconds_left - PACK_SECONDS)
    for stage in ("pretrain", "sft"):
        weights = newest_weights(run, stage)
        if weights:
            parts = pack(weights, folder / stage)
            log.note(f"pack {stage}", f"{parts} parts of {weights.relative_to(run.folder)}", 0)


@dataclass
class Log:
    """A table of what was done, on the disk after every line, and how much time is left."""

    path: Path
    deadline: float
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.path.write_text("| at, s | what | outcome | seconds |\n|---|---|---|---|\n", encoding="utf-8")

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def run(self, name: str, command: list[str], limit: float) -> None:
        """Run a command for at most `limit` seconds, with its output in a file of its own; Ctrl-C stops it then."""
        start = time.monotonic()
        output = self.path.with_name(f"{name}.txt")
        with output.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
            try:
                outcome = f"exit code {process.wait(max(1.0, limit))}"
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                outcome = f"stopped after {limit:.0f} s, exit code {process.wait()}"
        self.note(name, outcome, time.monotonic() - start)

    def note(self, name: str, outcome: str, seconds: float) -> None:
        """Add a line, on the screen too."""
        line = f"| {time.monotonic() - self.begun:.0f} | {name} | {outcome} | {seconds:.0f} |"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        print(line, flush=True)


def newest_weights(run: Run, stage: str) -> Path | None:
    """The final weights of a stage, or those of its latest checkpoint if it was stopped."""
    final = run.stage(stage) / "final" / "model.safetensors"
    checkpoints = sorted(run.stage(stage).glob("checkpoints/step-*/model.safetensors"))
    return final if final.exists() else checkpoints[-1] if checkpoints else None


def pack(weights: Path, folder: Path) -> int:
    """Write weights in bfloat16, compressed, in parts of `PART_BYTES`; returns the number of parts."""
    tensors = {name: tensor.bfloat16() for name, tensor in sorted(load_file(weights).items())}
    header = json.dumps({name: list(tensor.shape) for name, tensor in tensors.items()}).encode()
    pairs = torch.cat([tensor.flatten() for tensor in tensors.values()]).view(torch.uint8).numpy().reshape(-1, 2)
    # The high bytes have signs and exponents, which are much alike; the low ones do not compress.
    content = b"".join([len(header).to_bytes(8, "little"), header, pairs[:, 1].tobytes(), pairs[:, 0].tobytes()])
    compressed = zstandard.ZstdCompressor(level=12, threads=-1, write_checksum=True).compress(content)
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(compressed), PART_BYTES)
    for number, start in enumerate(starts):
        (folder / f"part-{number:02d}.zst").write_bytes(compressed[start : start + PART_BYTES])
    return len(starts)


def unpack(folder: Path, weights: Path) -> None:
    """Write the weights of all parts in a folder, as safetensors in bfloat16."""
    compressed = b"".join(part.read_bytes() for part in sorted(folder.glob("part-*.zst")))
    content = zstandard.ZstdDecompressor().decompress(compressed)
    end = 8 + int.from_bytes(content[:8], "little")
    shapes = json.loads(content[8:end])
    high, low = np.split(np.frombuffer(content, np.uint8, offset=end), 2)
    values = torch.from_numpy(np.stack([low, high], axis=1)).view(torch.bfloat16).flatten()
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    parts = zip(shapes.items(), torch.split(values, sizes), strict=True)
    save_file({name: part.view(shape).clone() for (name, shape), part in parts}, weights)


if __name__ == "__main__":
    main()
