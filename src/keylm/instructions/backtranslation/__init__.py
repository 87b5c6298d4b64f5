"""Instruction backtranslation by rules: real text becomes the answer, and the request is written for it."""
