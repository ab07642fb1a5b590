"""Federation's arithmetic: aggregation rules, privacy and compressed exchange, as pure functions on named tensors."""
