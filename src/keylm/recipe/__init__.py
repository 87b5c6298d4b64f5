"""The recipe: one typed YAML file that says everything about a model."""

from keylm.recipe.fingerprint import fingerprint
from keylm.recipe.loading import dump_recipe, load_recipe
from keylm.recipe.recipe import Recipe

__all__ = ["Recipe", "dump_recipe", "fingerprint", "load_recipe"]
