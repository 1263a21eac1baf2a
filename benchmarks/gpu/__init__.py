"""Everything that only a GPU can show, in stages of their own, for a machine lent for minutes."""
