"""Checks for problems of a data set beyond those that reading refuses: pure functions that return findings."""
