"""Scripts that make the notebooks from the chapters and check them. Run from the repository root."""
