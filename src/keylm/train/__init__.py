"""The training loop of pretraining and SFT."""
