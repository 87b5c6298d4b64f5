"""The order of the data, and how tokens become batches."""
