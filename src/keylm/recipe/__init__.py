"""The recipe: one typed YAML file that says everything about a model."""

from keylm.recipe.fingerprint import fingerprint
from keylm.recipe.loading import dump_recipe, load_recipe
from keylm.recipe.recipe import MIXTURE_STAGES, Recipe

__all__ = ["MIXTURE_STAGES", "Recipe", "dump_recipe", "fingerprint", "load_recipe"]
