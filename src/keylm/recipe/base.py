"""The base class of every recipe section, and integers that may be written as `18e9`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _parse_count(value: Any) -> Any:
    """Accept `18e9` and `"2e6"` for an integer: YAML parses the first as a float and the second as a string."""
    if isinstance(value, str):
        try:
            value = float(value.replace("_", ""))
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, BeforeValidator(_parse_count), Field(ge=0)]
PositiveCount = Annotated[int, BeforeValidator(_parse_count), Field(gt=0)]


class Config(BaseModel):
    """Base class of every recipe section. Unknown keys are rejected, and instances are immutable."""

    # `forbid`, because a misspelled key would silently leave the default. docs/recipe.md is made from the docstrings.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    renamed_keys: ClassVar[dict[str, str]] = {}
    """Keys of earlier versions, with their present names. A subclass lists only its own."""
    renamed_values: ClassVar[dict[str, dict[str, str]]] = {}
    """For each key with renamed values: the values of earlier versions, with their present names."""

    @model_validator(mode="before")
    @classmethod
    def _reject_old_names(cls, section: Any) -> Any:
        # Before validation, which would only say that the key is unknown.
        cls.check_old_names(section)
        return section

    @classmethod
    def check_old_names(cls, section: Any) -> None:
        """Check a section, as parsed from YAML, for names of earlier versions.

        Raises:
            ValueError: it has a renamed key or value; the message gives the new name.
        """
        if not isinstance(section, dict):
            return
        for base in cls.__mro__:
            for old_key, new_key in getattr(base, "renamed_keys", {}).items():
                if old_key in section:
                    raise ValueError(f"the key `{old_key}` is now called `{new_key}`")
            for key, renamed in getattr(base, "renamed_values", {}).items():
                # A list or a mapping is not hashable, and the field's own check names the mistake.
                value = section.get(key)
                if isinstance(value, str) and value in renamed:
                    raise ValueError(f"the value `{value}` of `{key}` is now called `{renamed[value]}`")
