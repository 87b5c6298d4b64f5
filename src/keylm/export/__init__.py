"""Export: the transformers folder, GGUF files, Modelfile and model card, their verification, and the upload."""
