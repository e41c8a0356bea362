"""The same tasks for other harnesses: lm-eval's bare task interface is `harness.plain`, Inspect is `inspect`."""
