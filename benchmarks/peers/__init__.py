"""The same checkpoint by every route a user would take, from a BGR frame to thresholded labels."""
