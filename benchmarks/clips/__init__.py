"""What an engine says of films whose truth was written down by eye."""
