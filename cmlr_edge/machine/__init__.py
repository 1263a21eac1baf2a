"""What this machine is, and what the product starts on it: facts, drivers, child processes, lazy OpenCV and PyAV."""
