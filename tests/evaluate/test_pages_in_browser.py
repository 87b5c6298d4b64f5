"""The report and the comparison in a real Chromium: nothing is cut off at any width, in light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.browser import WIDTHS, cut_off
from helpers.made_up_run import made_up_run

from keylm.commands.compare import compare_runs
from keylm.evaluate.report import write_report
from keylm.evaluate.results import collect_results


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pages")
    runs = [made_up_run(folder / name) for name in ("first", "second-" + "x" * 30)]
    write_report(runs[0], collect_results(runs[0]))
    compare_runs(runs, folder / "compare.html")
    return [runs[0].folder / "report.html", folder / "compare.html"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off(pages: list[Path], browser: Any, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    for path in pages:
        page.goto(path.as_uri())
        assert cut_off(page) == [], path.name
    page.close()
