"""The typo error model, and documents made with it."""
