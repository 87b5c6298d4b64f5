"""The shipped models: the real ones where this checkout has them, and a stand-in with random weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from keylm import shipped
from keylm.export.shipped_folder import write_shipped_folder
from keylm.run import Run
from keylm.shipped import SHIPPED, ShippedModel

REAL_FOLDER = shipped.MODELS


def write_stand_ins(run: Run, folder: Path) -> Path:
    """Fill a folder like `shipped.MODELS` with the export of a run, under the name of each shipped model."""
    copied = Run(folder / "run", run.recipe)
    shutil.copytree(run.stage("export") / "transformers", copied.stage("export") / "transformers")
    shutil.copy(run.folder / "recipe.yaml", copied.folder)
    (copied.folder / "results.json").write_text("{}")
    for name in SHIPPED:
        write_shipped_folder(copied, folder / name)
    return folder


def placed(name: str, exported: Run, folder: Path) -> Iterator[ShippedModel]:
    """A shipped model by its name, or the default one with a stand-in's files; its GGUF is cached in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        if name == "stand-in":
            patch.setattr(shipped, "MODELS", write_stand_ins(exported, folder / "models"))
            yield shipped.DEFAULT
        elif (REAL_FOLDER / name).exists():
            yield SHIPPED[name]
        else:
            pytest.skip(f"this checkout has no weights of {name}")
