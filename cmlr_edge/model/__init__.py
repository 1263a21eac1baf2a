"""What a model is: its spec, the files it comes in, its golden sample, and whether two of them agree."""
