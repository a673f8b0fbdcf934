"""A run put together in five steps. Each step shows itself from the draft and writes to it; the draft is the engine's to keep."""
