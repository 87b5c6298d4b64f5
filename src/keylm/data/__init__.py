"""From raw text to batches: sources, cleaning, token stores, the order of the data."""
