"""Answers from a trained model, through llama.cpp."""
