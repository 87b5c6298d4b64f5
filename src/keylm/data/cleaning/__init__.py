"""What a document goes through before it is used for training."""
