"""The tables of docs/results.md: their rows, their stored results, the command that runs them."""
