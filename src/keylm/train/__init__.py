"""The training loop of pretraining and SFT, and everything it needs."""
