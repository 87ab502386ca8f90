"""Whether an optimiser can be an inner one, tried on a few numbers when a learner is made."""
