"""Tables (later: plots, HTML) from result files. Reads result files and nothing else."""
