"""Copies the recipes and the documentation into the wheel. Everything else stands in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = {"recipes": "*.yaml", "docs": "*.md"}
"""Folders of the repository that the package reads from there in a checkout, and the files in them that it reads."""


class BuildWithFolders(build_py):
    """The package's modules and data, and in its folder those of `FOLDERS`."""

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        if self.editable_mode:
            return
        for folder, pattern in FOLDERS.items():
            target = Path(self.build_lib, "keylm", folder)
            self.mkpath(str(target))
            for path in Path(__file__).parent.joinpath(folder).glob(pattern):
                self.copy_file(str(path), str(target / path.name))


setup(cmdclass={"build_py": BuildWithFolders})
