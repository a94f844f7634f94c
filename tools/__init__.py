"""Scripts that make the notebooks from the chapters and check them; run them from the root."""
