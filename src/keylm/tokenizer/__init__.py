"""The tokenizer, its training, the chat template, and how messages become token ids."""
