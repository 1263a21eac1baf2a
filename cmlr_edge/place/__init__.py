"""The place as the confounder: which surroundings a source shows, held against those of training."""
