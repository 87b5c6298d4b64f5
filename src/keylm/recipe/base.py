"""What every section of a recipe is made of: the base class, and integers that may be written as `18e9`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _parse_count(value: Any) -> Any:
    """Accept `18e9` and `"2e6"` where an integer is meant: YAML reads the first as a float, the second as text."""
    if isinstance(value, str):
        try:
            value = float(value.replace("_", ""))
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, BeforeValidator(_parse_count), Field(ge=0)]
PositiveCount = Annotated[int, BeforeValidator(_parse_count), Field(gt=0)]


class Config(BaseModel):
    """Base class of every section of a recipe: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    renamed_keys: ClassVar[dict[str, str]] = {}
    """Keys of earlier versions, and what they are called now."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_renamed_keys(cls, values: Any) -> Any:
        cls.check_renamed_keys(values)
        return values

    @classmethod
    def check_renamed_keys(cls, values: Any) -> None:
        """Fail where the values of the section have a key of an earlier version.

        Raises:
            ValueError: they have one; the message names the new key.
        """
        # A subclass lists only its own renamed keys; those of its bases count too.
        renamed = {old: new for base in cls.__mro__ for old, new in getattr(base, "renamed_keys", {}).items()}
        for old in renamed.keys() & (values if isinstance(values, dict) else {}):
            raise ValueError(f"the key `{old}` is now called `{renamed[old]}`")


def refuse_renamed_value(value: Any, renamed: dict[str, str]) -> Any:
    """Fail where `value` is what earlier versions called something; else return it.

    Raises:
        ValueError: it is a key of `renamed`.
    """
    if isinstance(value, str) and value in renamed:
        raise ValueError(f"`{value}` is now called `{renamed[value]}`")
    return value
