"""Checks for what can be wrong with a data set beyond what reading refuses: pure functions that return findings."""
