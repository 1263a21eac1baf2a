"""What frames that contradict the model are worth to training, and what a kill does to those that are kept.

sampling.py   which frames of a pool are labelled next, by each way to choose
worlds.py     ContextScenes: trainings after each choice, and the Exclusive errors that are left
report.py     summary, table and picture of the stored runs
cost.py       milliseconds of a frame that is not kept, and of one that is
kills.py      a run that is killed at random moments, and what its folder then holds
"""
