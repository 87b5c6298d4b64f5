"""The `tokenizer` and `prepare` stages: documents become tokens on disk."""
