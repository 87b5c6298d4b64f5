"""One class per constraint, by subject; their phrasings are in the YAML files beside them."""
