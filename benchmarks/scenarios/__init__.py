"""One module per family of scenarios."""
