"""Side by side: how fast is the explicit second-order pass? See benchmarks/README.md."""
