"""What lasts: the ledger of studies, tasks and results, and the results themselves. Torch-free."""
