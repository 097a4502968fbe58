"""Objectives: what a step of training makes smaller. One loop runs them all (see `objective.Objective`)."""
