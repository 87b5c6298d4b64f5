"""Training after SFT, by trl: DPO and GRPO."""
