"""The tokenizer, the chat template, and how messages become token ids."""
