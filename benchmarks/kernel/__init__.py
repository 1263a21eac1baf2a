"""The attention kernel's work against what each board could do at best: counts, never times."""
