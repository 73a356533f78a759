"""One training loop for every network: the task owns its loss, the loop owns steps, devices, averages and files."""
