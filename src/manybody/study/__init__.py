"""The conductor: expands a study into tasks, runs them, measures, checks and reports."""
