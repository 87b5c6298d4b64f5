"""The folder of a model that comes with the package, made from a run."""

from __future__ import annotations

import shutil
from pathlib import Path

from keylm.common.errors import UserError
from keylm.common.files import replace_folder, write_checksums
from keylm.run import Run


def write_shipped_folder(run: Run, folder: Path) -> None:
    """Write what `keylm.shipped` describes: the transformers folder, recipe, scores and hashes of a run.

    Args:
        run: A run with an export and a `results.json`.
        folder: The folder to write, such as `src/keylm/models/keylm-nano`; an existing one is replaced.

    Raises:
        UserError: The run lacks one of these files.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(run.stage("export") / "transformers", partial)
        for name in ("recipe.yaml", "results.json"):
            shutil.copyfile(run.folder / name, partial / name)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: run `keylm run {run.folder}` first") from error
    write_checksums(partial, (path.name for path in partial.iterdir()))
    replace_folder(partial, folder)
