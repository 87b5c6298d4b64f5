"""The release: the transformers folder, the model card, the proof that every file is the same model."""
