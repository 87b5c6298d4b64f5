"""Where documents come from: one file per source type, and the registry of types."""
