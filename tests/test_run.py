"""The run folder: which stages are done, and with which settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from keylm.common.errors import UserError
from keylm.run import Run, open_run
from keylm.stages import run_until


def test_a_stage_made_from_other_settings_is_refused(prepared: Run, tmp_path: Path) -> None:
    other = Run(prepared.folder, prepared.recipe.model_copy(update={"seed": 99}))
    with pytest.raises(UserError, match="was made from other settings"):
        run_until(other, "prepare")


def test_what_does_not_shape_a_stage_does_not_spoil_it(prepared: Run) -> None:
    changed = open_run(prepared.folder, ["train.tokens=1e6", "data.sources.prose.weight=3", "export.temperature=1"])
    assert changed.is_done("prepare")
    open_run(prepared.folder, ["train.tokens=15360", "data.sources.prose.weight=0.6", "export.temperature=0.7"])


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run: it has no recipe\.yaml"):
        open_run(tmp_path)
