"""The words of the project as types: study, task, result, check, certificate. Torch-free."""
