"""What comes with this package besides code: models and recipes by name, and the documentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from keylm.common.errors import UserError
from keylm.common.files import CHECKSUMS

_PACKAGE = Path(__file__).parent

MODELS = _PACKAGE / "models"
"""The folder with a folder for each model."""


@dataclass(frozen=True)
class ShippedModel:
    """A model that comes with this package.

    Its folder is a transformers folder with a card (`README.md`), the recipe it was made by (`recipe.yaml`), its scores
    (`results.json`) and the hashes of all these files (`SHA256SUMS`).
    """

    name: str
    """Its name on the command line, and its folder in `MODELS`."""
    title: str
    """Its display name."""

    @property
    def folder(self) -> Path:
        """Its folder.

        Raises:
            UserError: This installation lacks the model.
        """
        folder = MODELS / self.name
        if not (folder / CHECKSUMS).exists():
            raise UserError(
                f"the weights of {self.name} are not in {folder}: install a release of keylm that has them "
                f"(wheels have {DEFAULT.name} only), or name a model of yours, such as runs/quickstart"
            )
        return folder


DEFAULT = ShippedModel("keylm-nano", "KeyLM-Nano-Instruct")
"""The model to chat with where none is named."""

SHIPPED = {model.name: model for model in (DEFAULT, ShippedModel("keylm-nano-base", "KeyLM-Nano-Base"))}
"""All of them, by name. Wheels have the default only."""


def shipped_model(name: Path | str) -> ShippedModel | None:
    """The shipped model of that name; None if there is none, or if a file or folder of that name is here."""
    return None if Path(name).exists() else SHIPPED.get(str(name))


def package_folder(name: str) -> Path:
    """The folder `recipes` or `docs`: in the package of a wheel, at the root of a checkout."""
    packaged = _PACKAGE / name
    return packaged if packaged.exists() else _PACKAGE.parents[1] / name


def shipped_recipe(name: Path | str) -> Path | None:
    """The recipe of that name; None if there is none, or if a file or folder of that name is here."""
    path = package_folder("recipes") / f"{name}.yaml"
    return path if path.exists() and not Path(name).exists() and Path(name).name == str(name) else None


def recipe_names() -> list[str]:
    """The names of the recipes that come with this package."""
    return sorted(path.stem for path in package_folder("recipes").glob("*.yaml"))
