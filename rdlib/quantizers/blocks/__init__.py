"""Block formats: a scale for every few weights."""
