"""Repository tools that make wheels and try them out on another architecture; never shipped."""
